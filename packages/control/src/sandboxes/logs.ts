import type { Guest } from '@icebox/model'
import { START_TAG } from '../templates/build.ts'
import { ENTRYPOINT_TAG } from './run.ts'

/** Output of the start command and the entrypoint, as far back as the guest keeps it. Without `follow` it ends at what is there now. */
export async function* sandboxLogs(guest: Guest, follow: boolean, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const execs = (await guest.listExecs(signal)).filter(({ tag }) => tag === START_TAG || tag === ENTRYPOINT_TAG)
  for (const exec of execs) {
    const session = await guest.attach(exec.id, {}, signal)
    const remaining = { stdout: exec.stdoutBytes, stderr: exec.stderrBytes }
    const isDone = () => !follow && remaining.stdout <= 0 && remaining.stderr <= 0
    try {
      if (isDone()) continue
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
      session.detach()
    }
  }
}
