import { type ExecExit, type ExecSession, IceboxError } from '@icebox/model'
import type { FastifyReply } from 'fastify'
import { pump, sendHead } from '../../stream.ts'
import { Lines } from './lines.ts'

/** Milliseconds between signs of life on a stream. */
const PING_EVERY = 5_000
/** Lines that are told together. */
const AT_ONCE = 512

/** The event of a stream, as the clients of execd know it. */
export interface StreamEvent {
  type: 'init' | 'stdout' | 'stderr' | 'error' | 'execution_complete' | 'ping'
  text?: string
  /** Milliseconds that the command took. */
  execution_time?: number
  error?: { ename: string; evalue: string; traceback: string[] }
}

const frame = (event: StreamEvent): string => `data: ${JSON.stringify({ ...event, timestamp: Date.now() })}\n\n`

/** A process that a signal ended has no exit code: -1, as in the runtime that these clients know. */
export const exitCodeOf = ({ exitCode }: ExecExit): number => exitCode ?? -1

/** Why a process that did not exit with 0 ended; undefined when it did. */
export function failureOf(exit: ExecExit): string | undefined {
  if (exit.timedOut) return 'the command ran into its timeout and was killed'
  if (exit.signal !== undefined) return `signal: ${exit.signal}`
  return exit.exitCode === 0 ? undefined : `exit status ${exit.exitCode}`
}

export const failed = (evalue: string, why: string): StreamEvent => ({
  type: 'error',
  error: { ename: 'CommandExecError', evalue, traceback: [why] },
})

/** The last event of a command: an exit code other than 0 is an error, and then nothing is complete. */
function ended(exit: ExecExit, milliseconds: number): StreamEvent {
  const failure = failureOf(exit)
  return failure === undefined
    ? { type: 'execution_complete', execution_time: Math.max(0, Math.round(milliseconds)) }
    : failed(String(exitCodeOf(exit)), failure)
}

/**
 * What a process does, as events: its id, each line once it is whole, its end. What is there at once comes together.
 * `onExit` is told when it has ended.
 */
export async function* eventsOf(session: ExecSession, onExit: () => void): AsyncGenerator<StreamEvent[]> {
  const startedAt = performance.now()
  yield [{ type: 'init', text: session.info.id }]
  const streams = { stdout: new Lines(), stderr: new Lines() }
  const texts = (type: 'stdout' | 'stderr', lines: string[]): StreamEvent[] => lines.map((text) => ({ type, text }))
  for await (const event of session.events) {
    switch (event.type) {
      case 'output':
        // A piece of output may be nothing but ends of lines: its client is waited for in between.
        for (let lines = streams[event.stream].add(event.data); lines.length > 0; )
          yield texts(event.stream, lines.splice(0, AT_ONCE))
        break
      case 'gap':
        yield texts(event.stream, [`[${event.to - event.from} bytes were dropped]`])
        break
      case 'exit':
        onExit()
        yield [
          ...texts('stdout', streams.stdout.end()),
          ...texts('stderr', streams.stderr.end()),
          ended(event.exit, performance.now() - startedAt),
        ]
        return
    }
  }
  throw new IceboxError('GuestFailed', 'the link to the sandbox ended before the command did')
}

/** As they stand in a stream of server-sent events. */
async function* frames(batches: AsyncIterable<StreamEvent[]>): AsyncGenerator<string> {
  for await (const events of batches) if (events.length > 0) yield events.map(frame).join('')
}

/**
 * Answers with events. What goes wrong once the head has been sent is told in a last `error` event. Resolves when the reply
 * has ended.
 */
export async function sendEvents(
  reply: FastifyReply,
  events: AsyncIterable<StreamEvent[]>,
  signal: AbortSignal,
): Promise<void> {
  sendHead(reply, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache', 'x-accel-buffering': 'no' })
  const { raw } = reply
  raw.flushHeaders()
  const ping = setInterval(() => {
    if (!raw.writableNeedDrain) raw.write(frame({ type: 'ping', text: 'pong' }))
  }, PING_EVERY)
  try {
    await pump(reply, frames(events), signal)
  } catch (thrown) {
    if (raw.destroyed) return
    const error = IceboxError.from(thrown)
    reply.request.failure = error
    raw.write(frame({ type: 'error', error: { ename: error.code, evalue: error.message, traceback: [] } }))
  } finally {
    clearInterval(ping)
  }
  raw.end()
}
