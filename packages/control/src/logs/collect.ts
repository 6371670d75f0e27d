import { asExecutionId, type ExecInfo, type Guest, IceboxError, type Sandbox } from '@icebox/model'
import { type Context, DEADLINES, within } from '../context.ts'
import { ENTRYPOINT_TAG } from '../sandboxes/run.ts'
import { START_TAG } from '../templates/build.ts'
import type { NewEntry } from './logs.ts'

/** Milliseconds that output on its way into the log is waited for. */
const CATCH_UP_MS = 2_000

/** Writes what the start command and the entrypoint of a running sandbox say into its log, as long as its run goes on. */
export async function collectLogs(context: Context, sandbox: Sandbox): Promise<void> {
  const { name } = sandbox.metadata
  try {
    await context.logs.during(name, sandbox.status.execution ?? '', async (append) => {
      const guest = guestOf(context, sandbox)
      const execs = await writers(context, guest)
      if (execs.length === 0) return
      const ends = await context.logs.ends(name)
      const start = { stdout: 0, stderr: 0 }
      await Promise.all(execs.map((exec) => collect(context, guest, exec, ends.get(exec.id) ?? start, append)))
    })
  } catch (thrown) {
    // A run that ends takes its link with it.
    context.log('info', 'logs.ended', { sandbox: name, why: IceboxError.from(thrown).message })
  }
}

const guestOf = (context: Context, { status }: Sandbox): Guest =>
  context.node.guest(asExecutionId(status.execution ?? ''))

const writers = async (context: Context, guest: Guest): Promise<ExecInfo[]> =>
  (await guest.listExecs(within(context, DEADLINES.call))).filter(
    ({ tag }) => tag === START_TAG || tag === ENTRYPOINT_TAG,
  )

/** Resolves when what a running sandbox has said by now is in its log. One that answers late, or not, is not waited for. */
export async function caughtUp(context: Context, sandbox: Sandbox, signal: AbortSignal): Promise<void> {
  const soon = AbortSignal.any([signal, AbortSignal.timeout(CATCH_UP_MS)])
  const execs = await writers(context, guestOf(context, sandbox)).catch(() => [])
  await Promise.all(
    execs.map(({ id, stdoutBytes, stderrBytes }) =>
      context.logs.until(sandbox.metadata.name, id, { stdout: stdoutBytes, stderr: stderrBytes }, soon),
    ),
  )
}

async function collect(
  context: Context,
  guest: Guest,
  exec: ExecInfo,
  known: { stdout: number; stderr: number },
  append: (entry: NewEntry) => Promise<void>,
): Promise<void> {
  // After a rollback the process has written less than what is here.
  const from = { stdout: Math.min(known.stdout, exec.stdoutBytes), stderr: Math.min(known.stderr, exec.stderrBytes) }
  const session = await guest.attach(exec.id, from, within(context, DEADLINES.call))
  const detach = () => session.detach()
  context.closing.addEventListener('abort', detach, { once: true })
  const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() }
  const said = { exec: exec.id, ...(exec.tag === undefined ? {} : { of: exec.tag }) }
  try {
    for await (const event of session.events) {
      switch (event.type) {
        case 'output': {
          const text = decoders[event.stream].decode(event.data, { stream: true })
          const end = event.offset + event.data.length
          await append({ ...said, source: event.stream, text, end })
          break
        }
        case 'gap': {
          const text = `[${event.to - event.from} bytes of ${event.stream} were dropped]\n`
          await append({ ...said, source: event.stream, text, end: event.to })
          break
        }
        case 'exit': {
          const { exitCode, signal } = event.exit
          const how = exitCode === undefined ? `was ended by ${signal}` : `ended with status ${exitCode}`
          await append({ ...said, source: 'lifecycle', text: `the ${exec.tag} process ${how}` })
          break
        }
        default:
          event satisfies never
      }
    }
  } finally {
    context.closing.removeEventListener('abort', detach)
    session.detach()
  }
}
