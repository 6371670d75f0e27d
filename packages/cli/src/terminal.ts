import { once } from 'node:events'
import { fstatSync } from 'node:fs'
import { constants } from 'node:os'
import { type Exec, type ExecExit, isIceboxError, type Sandbox } from '@icebox/sdk'
import { Refusal } from './failure.ts'
import { note, printJson } from './output.ts'

/** Statuses of the tools people know: timeout(1) for a command out of time, a shell for one that a signal ended. */
export const TIMED_OUT = 124
/** Icebox itself failed, the command did not. */
export const ICEBOX_FAILED = 125

export function statusOf(exit: ExecExit): number {
  if (exit.timedOut) return TIMED_OUT
  if (exit.exitCode !== undefined) return exit.exitCode
  return signalStatus(exit.signal ?? '')
}
const signalStatus = (name: string): number => 128 + (isSignal(name) ? constants.signals[name] : 0)
const isSignal = (name: string): name is NodeJS.Signals => Object.hasOwn(constants.signals, name)

/** Signals that are passed on to the command. */
const PASSED = ['SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGHUP'] as const
export interface Request {
  argv: readonly string[]
  user?: string | undefined
  cwd?: string | undefined
  env?: Record<string, string> | undefined
  timeoutMs?: number | undefined
  /** Give it a terminal. */
  tty: boolean
  /** Pass stdin on even when it is a terminal. */
  interactive: boolean
  /** Whether a signal ends this instead of being passed on. Default: only where a terminal is in raw mode. */
  endsBy?: (name: NodeJS.Signals) => boolean
  /** Where output goes. Default: stdout and stderr of this process. */
  output?: (stream: 'stdout' | 'stderr', data: Uint8Array) => Promise<void> | void
}

export interface Outcome {
  /** To exit with. */
  status: number
  /** Absent when a signal ended the listening. */
  exit?: ExecExit
  execId: string
}

/** A file, a pipe or a socket on stdin has something to say; /dev/null has not. */
function stdinSpeaks(): boolean {
  const kind = fstatSync(0)
  return !process.stdin.isTTY && !kind.isCharacterDevice()
}

const windowSize = () => ({
  // 0 is what a terminal says that nobody has told its size.
  cols: process.stdout.columns || 80,
  rows: process.stdout.rows || 24,
})

/**
 * Runs a command with this process's terminal, stdin, stdout, stderr and signals. Whatever happens the terminal is left as it
 * was found.
 */
export async function runHere(sandbox: Sandbox, request: Request): Promise<Outcome> {
  const { argv, user, cwd, timeoutMs, tty } = request
  const passStdin = request.interactive || stdinSpeaks()
  const raw = tty && passStdin && process.stdin.isTTY
  const term = process.env.TERM
  const env = tty && term !== undefined ? { TERM: term, ...request.env } : (request.env ?? {})
  const exec = sandbox.exec(argv, {
    env,
    stdin: passStdin,
    ...(user === undefined ? {} : { user }),
    ...(cwd === undefined ? {} : { cwd }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(tty ? { pty: windowSize() } : {}),
  })
  const endsBy = request.endsBy ?? ((name) => raw && name !== 'SIGINT')
  let started = false
  let signalled = 0
  let endedBy: NodeJS.Signals | undefined
  const onSignal = (name: NodeJS.Signals) => {
    signalled += 1
    // One signal waits until there is a process to give it to; who sends another will not.
    if (endsBy(name) || (!started && signalled > 1)) {
      endedBy = name
      exec.detach()
    } else {
      // One that comes as the process ends finds nobody any more.
      exec.kill(name).catch(() => {})
    }
  }
  const onResize = () => {
    const { cols, rows } = windowSize()
    exec.resize(cols, rows).catch(() => {})
  }
  for (const name of PASSED) process.on(name, onSignal)
  if (tty) process.stdout.on('resize', onResize)
  if (raw) process.stdin.setRawMode(true)
  try {
    const { id } = await exec.started.catch((thrown: unknown) => {
      throw notRun(thrown)
    })
    started = true
    // The size may have changed since it was asked for.
    if (tty && process.stdout.isTTY) onResize()
    let unfed: { thrown: unknown } | undefined
    if (passStdin)
      passOn(exec).catch((thrown: unknown) => {
        unfed = { thrown }
        // Otherwise it would wait for ever for what nobody gives it.
        exec.detach()
      })
    const exit = await copyOutput(exec, request.output ?? toOurs)
    if (exit !== undefined) return { status: statusOf(exit), exit, execId: id }
    if (unfed !== undefined) throw unfed.thrown
    return { status: endedBy === undefined ? ICEBOX_FAILED : signalStatus(endedBy), execId: id }
  } finally {
    if (raw) process.stdin.setRawMode(false)
    process.stdin.pause()
    process.stdout.off('resize', onResize)
    for (const name of PASSED) process.off(name, onSignal)
  }
}

/** As a shell has it: 127 for a command that is not there, 126 for one that cannot be run. */
function notRun(thrown: unknown): unknown {
  if (!isIceboxError(thrown, 'NotFound', 'InvalidArgument')) return thrown
  const remedy = 'Check the program, --user and --cwd: all three are looked up in the sandbox.'
  return new Refusal(thrown.code, thrown.message, remedy, thrown.code === 'NotFound' ? 127 : 126)
}

/** Stdin, piece by piece, each once the guest has taken the one before. */
async function passOn(exec: Exec): Promise<void> {
  try {
    for await (const chunk of process.stdin) await exec.stdin.write(chunk)
    await exec.stdin.close()
  } catch (thrown) {
    // A process that has ended, or has closed its stdin, wants no more; what it was is told by its exit.
    if (!isIceboxError(thrown, 'InvalidState')) throw thrown
  }
}

async function copyOutput(exec: Exec, output: NonNullable<Request['output']>): Promise<ExecExit | undefined> {
  for await (const event of exec) {
    if (event.type === 'exit') return event.exit
    if (event.type === 'output') await output(event.stream, event.data)
    else note(`icebox: ${event.to - event.from} bytes of ${event.stream} were lost`)
  }
  return undefined
}

async function toOurs(name: 'stdout' | 'stderr', data: Uint8Array): Promise<void> {
  const stream = process[name]
  if (!stream.write(data)) await once(stream, 'drain')
}

/** The same for programs: prints one object when it has ended, with what it wrote as text. */
export async function runForJson(sandbox: Sandbox, request: Request): Promise<number> {
  const written: { stdout: Uint8Array[]; stderr: Uint8Array[] } = { stdout: [], stderr: [] }
  const { status, exit, execId } = await runHere(sandbox, {
    ...request,
    output: (stream, data) => void written[stream].push(data),
  })
  const [stdout, stderr] = [written.stdout, written.stderr].map((pieces) => Buffer.concat(pieces).toString('utf8'))
  printJson({ id: execId, sandboxId: sandbox.id, ...exit, stdout, stderr })
  return status
}
