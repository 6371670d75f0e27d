import { spawn } from 'node:child_process'
import { IceboxError, isError } from '@icebox/model'
import { exposeToOom } from '../../oom.ts'
import { lastError } from './log.ts'

/** What is the same in every call and matters to a restore. */
export const FLAGS = [
  '--platform=systrap',
  '--network=sandbox',
  // The sentry then runs as nobody, without capabilities, and a gofer opens what few host files there are.
  '--directfs=false',
  '--allow-suid',
  // What must match is compared before runsc sees a snapshot; paths may differ.
  '--restore-spec-validation=ignore',
  '--host-settings=ignore',
]

export interface Call {
  /** The subcommand with its arguments. */
  arguments: string[]
  /** runsc's own state directory. */
  root: string
  /** Errors of runsc and panics of the sentry are appended to this file. */
  log: string
  /** The network namespace of the gofer. */
  network: string
  /** Open files given as standard input and output. */
  stdio?: [number, number]
  deadlineMs: number
  /** Whether the signal ends the call at once; else it is finished first, where half of it would be worse than all. */
  abortable: boolean
}

/** Whether somebody ended the command before it had done what it was to do. */
export const wasKilled = (thrown: unknown): boolean =>
  isError(thrown, 'Internal') && thrown.details.signal !== undefined

/** Runs one runsc command to its end. Throws NoSpace, DeadlineExceeded, or Internal with what runsc said. */
export async function callRunsc(path: string, call: Call, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  const [command = ''] = call.arguments
  const child = spawn(
    path,
    [
      ...FLAGS,
      `--root=${call.root}`,
      `--log=${call.log}`,
      '--log-format=json',
      `--panic-log=${call.log}`,
      `--gofer-network-namespace=${call.network}`,
      ...call.arguments,
    ],
    {
      // Standard error becomes that of the guest's first process, which could fill whatever it is given.
      stdio: [call.stdio?.[0] ?? 'ignore', call.stdio?.[1] ?? 'ignore', 'ignore'],
      // A group of its own: what ends the server, such as Ctrl-C, does not end it half-way.
      detached: true,
      cwd: '/',
      env: {},
    },
  )
  exposeToOom(child)
  const deadline = AbortSignal.timeout(call.deadlineMs)
  const end = call.abortable ? AbortSignal.any([signal, deadline]) : deadline
  const stop = () => child.kill('SIGKILL')
  end.addEventListener('abort', stop, { once: true })
  try {
    const { code, signalName } = await new Promise<{ code: number | null; signalName: string | null }>(
      (resolve, reject) => {
        child.once('error', reject)
        child.once('exit', (code, signalName) => resolve({ code, signalName }))
      },
    )
    if (code === 0) return
    signal.throwIfAborted()
    if (deadline.aborted)
      throw new IceboxError('DeadlineExceeded', `runsc ${command} took longer than ${call.deadlineMs} ms`)
    if (signalName)
      throw new IceboxError('Internal', `runsc ${command} was ended by ${signalName}`, {
        details: { signal: signalName },
      })
    const said = await lastError(call.log)
    if (/no space left on device|disk quota exceeded/i.test(said))
      throw new IceboxError('NoSpace', `runsc ${command}: the disk is full: ${said}`)
    throw new IceboxError('Internal', `runsc ${command} failed: ${said}`)
  } finally {
    end.removeEventListener('abort', stop)
  }
}
