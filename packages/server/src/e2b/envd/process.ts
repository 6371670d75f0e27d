import { setTimeout as sleep } from 'node:timers/promises'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from '@connectrpc/connect'
import { type ExecEvent, type ExecExit, type ExecInput, type ExecSession, isError } from '@icebox/model'
import { KEEP_ALIVE, withKeepAlive } from '../../keep-alive.ts'
import { bounded, type Call, callOf, guestPath, workingDirOf } from './call.ts'
import {
  type Process,
  type ProcessEventSchema,
  type ProcessInput,
  type ProcessSelector,
  type PTY,
  Signal,
  type StartRequest,
} from './generated/process_pb.js'
import { keepAliveInterval } from './keep-alive.ts'
import { findExec, RunningExecs } from './running-execs.ts'
import { streaming, unary } from './translate.ts'
import { givenOf, variablesOf } from './variables.ts'

/** Characters of a terminal whose client does not say. */
const DEFAULT_SIZE = { cols: 80, rows: 24 }

/** Milliseconds for which the end of a process is awaited that was killed, and between two looks. */
const GONE_MS = 500
const LOOK_MS = 5

/** What Go calls the signals that end processes. */
const SIGNAL_TEXT: Readonly<Record<string, string>> = {
  SIGHUP: 'hangup',
  SIGINT: 'interrupt',
  SIGQUIT: 'quit',
  SIGILL: 'illegal instruction',
  SIGTRAP: 'trace/breakpoint trap',
  SIGABRT: 'aborted',
  SIGBUS: 'bus error',
  SIGFPE: 'floating point exception',
  SIGKILL: 'killed',
  SIGUSR1: 'user defined signal 1',
  SIGSEGV: 'segmentation fault',
  SIGUSR2: 'user defined signal 2',
  SIGPIPE: 'broken pipe',
  SIGALRM: 'alarm clock',
  SIGTERM: 'terminated',
}

/** What a stream tells, as it is written down. */
type Told = MessageInitShape<typeof ProcessEventSchema>

/** envd's service of processes. A client that goes away ends none of them. */
export function processService(): ServiceImpl<typeof Process> {
  const running = new RunningExecs()

  /** What the attachment gives, from its start on. While its client does not read, the process waits. */
  async function* follow(
    { execution }: Call,
    session: ExecSession,
    context: HandlerContext,
  ): AsyncGenerator<{ event: Told }> {
    const { signal } = context
    // Also while nobody asks for the next event, as when a client that is gone had stopped reading.
    const detach = () => {
      running.remove(execution, session)
      session.detach()
    }
    running.add(execution, session)
    signal.addEventListener('abort', detach, { once: true })
    try {
      signal.throwIfAborted()
      yield { event: { event: { case: 'start', value: { pid: session.info.pid } } } }
      const source = withKeepAlive(session.events, keepAliveInterval(context.requestHeader), signal)
      for await (const each of source) {
        if (each === KEEP_ALIVE) yield { event: { event: { case: 'keepalive', value: {} } } }
        else yield { event: told(each, session.info.pty) }
      }
    } finally {
      signal.removeEventListener('abort', detach)
      detach()
    }
  }

  async function write(
    call: Call,
    selector: ProcessSelector | undefined,
    input: ProcessInput | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const session = await running.input(call, selector, signal)
    const given = input?.input
    if (given?.case === undefined) throw new ConnectError('there is no input', Code.InvalidArgument)
    if ((given.case === 'pty') !== session.info.pty)
      throw new ConnectError(
        session.info.pty
          ? 'the process has a terminal: write to that'
          : 'the process has no terminal: write to its stdin',
        Code.InvalidArgument,
      )
    if (given.value.length > 0) await session.writeStdin(given.value, { signal })
  }

  return {
    list: unary(async (_, context) => {
      const { guest, sandbox } = callOf(context)
      const execs = (await guest.listExecs(bounded(context.signal, 'short'))).filter(({ exit }) => exit === undefined)
      return {
        processes: execs.map(({ argv: [cmd = '', ...args], env = {}, cwd, pid, tag }) => ({
          config: { cmd, args, envs: givenOf(sandbox, env), cwd },
          pid,
          ...(tag === undefined ? {} : { tag }),
        })),
      }
    }),

    start: streaming(async function* (request, context) {
      const call = callOf(context)
      const input = execInput(request, call, context.timeoutMs())
      const session = await call.guest.exec(input, bounded(context.signal, 'short')).catch((thrown: unknown) => {
        throw startError(thrown, input)
      })
      yield* follow(call, session, context)
    }),

    connect: streaming(async function* ({ process }, context) {
      const call = callOf(context)
      const signal = bounded(context.signal, 'short')
      const { id, stdoutBytes, stderrBytes } = await findExec(call.guest, process, signal)
      // From now on: what was written before is not told again.
      const session = await call.guest.attach(id, { stdout: stdoutBytes, stderr: stderrBytes }, signal)
      yield* follow(call, session, context)
    }),

    update: unary(async ({ process, pty }, context) => {
      const signal = bounded(context.signal, 'short')
      const session = await running.session(callOf(context), process, signal)
      if (pty?.size !== undefined) {
        const { cols, rows } = sizeOf(pty)
        await session.resize(cols, rows, signal)
      }
      return {}
    }),

    sendInput: unary(async ({ process, input }, context) => {
      await write(callOf(context), process, input, context.signal)
      return {}
    }),

    streamInput: async (requests, context) => {
      const input = unary(async (_: unknown) => {
        let process: ProcessSelector | undefined
        for await (const { event } of requests)
          switch (event.case) {
            case 'start':
              process = event.value.process
              await running.input(callOf(context), process, bounded(context.signal, 'short'))
              break
            case 'data':
              await write(callOf(context), process, event.value.input, context.signal)
              break
            case 'keepalive':
              break
            case undefined:
              throw new ConnectError('an event of no known kind', Code.InvalidArgument)
          }
        return {}
      })
      return input(undefined, context)
    },

    closeStdin: unary(async ({ process }, context) => {
      const signal = bounded(context.signal, 'short')
      const session = await running.input(callOf(context), process, signal)
      if (session.info.pty)
        throw new ConnectError('a terminal has no stdin to close: write Ctrl-D (0x04) to it', Code.FailedPrecondition)
      await session.closeStdin(signal)
      return {}
    }),

    sendSignal: unary(async ({ process, signal: number }, context) => {
      const name = number === Signal.SIGKILL ? 'SIGKILL' : number === Signal.SIGTERM ? 'SIGTERM' : undefined
      if (name === undefined) throw new ConnectError(`invalid signal: ${number}`, Code.Unimplemented)
      const signal = bounded(context.signal, 'short')
      const session = await running.session(callOf(context), process, signal)
      await session.kill(name, signal).catch((thrown: unknown) => {
        if (!isError(thrown, 'InvalidState')) throw thrown
        throw new ConnectError(`process with pid ${session.info.pid} not found: it has exited`, Code.NotFound)
      })
      if (name === 'SIGKILL') await gone(callOf(context), session.info.id, signal)
      return {}
    }),
  }
}

/** Nothing of a process that was killed is seen any more after the answer, unless its end takes long. */
async function gone({ guest }: Call, id: string, signal: AbortSignal): Promise<void> {
  const until = performance.now() + GONE_MS
  while (performance.now() < until) {
    const exec = (await guest.listExecs(signal)).find((each) => each.id === id)
    if (exec === undefined || exec.exit !== undefined) return
    await sleep(LOOK_MS, undefined, { signal })
  }
}

function execInput(request: StartRequest, call: Call, timeoutMs: number | undefined): ExecInput {
  const { process, pty, tag, stdin } = request
  if (process === undefined || process.cmd === '') throw new ConnectError('there is no command', Code.InvalidArgument)
  const cwd = process.cwd ? guestPath(process.cwd, call) : workingDirOf(call)
  return {
    argv: [process.cmd, ...process.args],
    env: { ...variablesOf(call.sandbox), ...process.envs },
    ...(cwd === '' ? {} : { cwd }),
    ...(call.user === undefined ? {} : { user: call.user }),
    ...(pty === undefined ? {} : { pty: sizeOf(pty) }),
    stdin: pty !== undefined || (stdin ?? true),
    // Also when nobody is there any more to wait for it.
    ...(timeoutMs === undefined ? {} : { timeoutMs: Math.max(1, Math.ceil(timeoutMs)) }),
    overflow: 'follow',
    ...(tag === undefined ? {} : { tag }),
  }
}

const sizeOf = ({ size }: PTY): { cols: number; rows: number } => ({
  cols: size?.cols || DEFAULT_SIZE.cols,
  rows: size?.rows || DEFAULT_SIZE.rows,
})

/** A program or directory that is not there is the request's fault, and no process that was not found. */
function startError(thrown: unknown, { cwd }: ExecInput): unknown {
  if (!isError(thrown, 'NotFound') || thrown.details.errno === undefined) return thrown
  const isDirectory = cwd !== undefined && thrown.message.startsWith('working directory')
  return new ConnectError(isDirectory ? `cwd '${cwd}' does not exist` : thrown.message, Code.InvalidArgument)
}

function told(each: ExecEvent, pty: boolean): Told {
  switch (each.type) {
    case 'output':
      return { event: { case: 'data', value: { output: { case: pty ? 'pty' : each.stream, value: each.data } } } }
    case 'gap':
      throw new ConnectError(
        `bytes ${each.from} to ${each.to} of ${each.stream} were dropped because nobody read them in time`,
        Code.DataLoss,
      )
    case 'exit':
      return { event: { case: 'end', value: ended(each.exit) } }
  }
}

function ended({ exitCode, signal, timedOut }: ExecExit) {
  if (timedOut) throw new ConnectError('the process was killed: its time was over', Code.DeadlineExceeded)
  if (exitCode !== undefined) {
    const status = `exit status ${exitCode}`
    return { exitCode, exited: true, status, ...(exitCode === 0 ? {} : { error: status }) }
  }
  const status = `signal: ${SIGNAL_TEXT[signal ?? ''] ?? signal}`
  return { exitCode: -1, exited: false, status, error: status }
}
