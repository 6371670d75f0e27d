import type { ExecInfo, Guest } from '@icebox/model'
import { START_TAG } from '../templates/build.ts'
import { ENTRYPOINT_TAG } from './run.ts'

/**
 * Output of the start command and the entrypoint, as far back as the guest keeps it. Without `follow` one after the other, to what
 * is there now; with it both as it comes, until they have ended or the signal aborts.
 */
export async function* sandboxLogs(guest: Guest, follow: boolean, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const execs = (await guest.listExecs(signal)).filter(({ tag }) => tag === START_TAG || tag === ENTRYPOINT_TAG)
  if (!follow) for (const exec of execs) yield* outputOf(guest, exec, false, signal)
  else {
    // Who leaves early leaves all of them, also one that has nothing to say.
    const leaving = new AbortController()
    const until = AbortSignal.any([signal, leaving.signal])
    try {
      yield* merged(execs.map((exec) => outputOf(guest, exec, true, until)))
    } finally {
      leaving.abort()
    }
  }
}

async function* outputOf(
  guest: Guest,
  exec: ExecInfo,
  follow: boolean,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const session = await guest.attach(exec.id, {}, signal)
  const detach = () => session.detach()
  signal.addEventListener('abort', detach)
  const remaining = { stdout: exec.stdoutBytes, stderr: exec.stderrBytes }
  const isDone = () => !follow && remaining.stdout <= 0 && remaining.stderr <= 0
  try {
    signal.throwIfAborted()
    if (isDone()) return
    for await (const event of session.events) {
      if (event.type === 'output') {
        yield event.data
        remaining[event.stream] = exec[`${event.stream}Bytes`] - event.offset - event.data.length
      }
      if (event.type === 'gap') {
        yield new TextEncoder().encode(`[${event.to - event.from} bytes of ${event.stream} were dropped]\n`)
        remaining[event.stream] = exec[`${event.stream}Bytes`] - event.to
      }
      if (event.type === 'exit' || isDone()) break
    }
  } finally {
    signal.removeEventListener('abort', detach)
    session.detach()
  }
}

/** What each gives, as it comes, and in turn when all have something. */
async function* merged<T>(sources: AsyncGenerator<T>[]): AsyncGenerator<T> {
  const next = (source: AsyncGenerator<T>) => {
    const pending = source.next().then((result) => ({ source, result }))
    // Of who has left, nobody looks at it any more.
    pending.catch(() => {})
    return pending
  }
  const waiting = new Map(sources.map((source) => [source, next(source)]))
  while (waiting.size > 0) {
    const { source, result } = await Promise.race(waiting.values())
    waiting.delete(source)
    if (result.done === true) continue
    waiting.set(source, next(source))
    yield result.value
  }
}
