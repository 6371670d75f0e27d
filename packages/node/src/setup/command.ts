import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { exposeToOom } from '../oom.ts'

const KEPT_LINES = 40

export interface CommandOptions {
  cwd?: string
  /** Added to this process's environment; `undefined` takes a variable away. */
  env?: Record<string, string | undefined>
  /** Milliseconds after which the command and its children are killed. */
  deadlineMs: number
  /** Called with each line of either output as it comes. */
  onLine?: (line: string) => void
}

/**
 * Runs a program to its end and gives its standard output. Its whole process group is killed at the deadline and on abort.
 * Throws an Error whose message holds the end of what the program said.
 */
export async function command(
  program: string,
  args: string[],
  options: CommandOptions,
  signal: AbortSignal,
): Promise<string> {
  const until = AbortSignal.any([signal, AbortSignal.timeout(options.deadlineMs)])
  until.throwIfAborted()
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  exposeToOom(child)
  const kill = () => {
    if (child.pid === undefined) return
    try {
      process.kill(-child.pid, 'SIGKILL')
    } catch {
      // The group ended by itself.
    }
  }
  until.addEventListener('abort', kill, { once: true })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  const last: string[] = []
  for (const stream of [child.stdout, child.stderr])
    createInterface({ input: stream }).on('line', (line) => {
      last.push(line)
      if (last.length > KEPT_LINES) last.shift()
      options.onLine?.(line)
    })
  try {
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    child.once('error', reject)
    child.once('close', (code, killedBy) => resolve(code === 0 ? '' : (killedBy ?? `exit status ${code}`)))
    const failure = await promise
    if (until.aborted) {
      signal.throwIfAborted()
      throw new Error(`${program} took longer than ${options.deadlineMs / 1000} s and was ended`)
    }
    if (failure !== '') throw new Error(`${[program, ...args].join(' ')}: ${failure}\n${last.join('\n')}`)
    return output
  } finally {
    until.removeEventListener('abort', kill)
  }
}

/** The first line that `program args` prints, however it exits; undefined when it cannot be run or prints nothing. */
export async function firstLine(program: string, args: string[], signal: AbortSignal): Promise<string | undefined> {
  const said: string[] = []
  try {
    await command(program, args, { deadlineMs: 10_000, onLine: (line) => said.push(line) }, signal)
  } catch {
    signal.throwIfAborted()
  }
  return said.find((line) => line.trim() !== '')?.trim()
}
