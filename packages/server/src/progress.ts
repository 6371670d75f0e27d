import type { Progress, ProgressLine } from '@icebox/model'
import type { FastifyReply } from 'fastify'
import { DEADLINE } from './deadline.ts'
import { line, NDJSON, sendLines } from './lines.ts'
import type { Streams } from './stream.ts'

/** Whether the client wants lines of progress instead of the bare result. */
export const wantsProgress = (reply: FastifyReply): boolean =>
  (reply.request.headers.accept ?? '').toLowerCase().includes(NDJSON)

/**
 * The steps of work under way as lines, the last of them with its result. Only the newest step is kept for a client that
 * reads slowly: progress holds nothing back.
 */
class Steps {
  #newest: ProgressLine | undefined
  #wake: () => void = () => undefined
  readonly #begun = Promise.withResolvers<void>()
  /** Resolves with the first step. */
  readonly begun = this.#begun.promise

  readonly report: Progress = (step) => {
    this.#newest = step
    this.#begun.resolve()
    this.#wake()
  }

  async *lines(work: Promise<unknown>): AsyncGenerator<string> {
    let ended = false
    const done = () => {
      ended = true
      this.#wake()
    }
    work.then(done, done)
    for (;;) {
      const step = this.#newest
      this.#newest = undefined
      if (step !== undefined) yield line(step)
      else if (ended) break
      else
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
    }
    yield line({ result: await work })
  }
}

/**
 * Answers with the progress of work and last its result. Work that fails before its first step is answered with the status
 * of its error. The signal given to it fires when the client goes away: work that goes on without one ignores it.
 */
export async function sendProgress<T>(
  reply: FastifyReply,
  streams: Streams,
  start: (progress: Progress, signal: AbortSignal) => Promise<T>,
): Promise<void> {
  const steps = new Steps()
  const { started: work, signal } = await streams.open(reply, DEADLINE.work, async (opened) => {
    const result = start(steps.report, opened)
    result.catch(() => undefined)
    await Promise.race([steps.begun, result])
    return { result }
  })
  await sendLines(reply, steps.lines(work.result), signal, (error) => ({ error }))
}
