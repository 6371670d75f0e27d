import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { runSteps } from '@icebox/node'
import { z } from 'zod'
import { clientSteps, npmClients, pythonClients } from '../../setup/clients.ts'
import { ServerProcess } from '../server-process.ts'
import { type CallList, Calls } from './calls.ts'

const ICEBOX = join(import.meta.dirname, '../../icebox')
const DEADLINE_MS = 540_000
const soon = () => AbortSignal.timeout(DEADLINE_MS)
const CallsFile = z.object({ all: z.array(z.string()), called: z.array(z.string()) })

/** Makes sure of the clients, where no set-up came before, and starts a server with the template `base`. */
export async function startServer(name: string): Promise<ServerProcess> {
  await runSteps(clientSteps, () => undefined, soon())
  return ServerProcess.start(`compat-${name}`, { flags: [] })
}

/** What an E2B program has in its environment, as `icebox e2b env` tells it: three variables, and nothing else is changed. */
export async function e2bEnvironment(server: ServerProcess): Promise<Record<string, string>> {
  const { stdout, stderr } = await run([ICEBOX, 'e2b', 'env', '--json', '--data', server.dataDirectory], {})
  const variables = z.record(z.string(), z.string()).safeParse(stdout === '' ? undefined : JSON.parse(stdout))
  if (!variables.success) throw new Error(`icebox e2b env: ${stdout}${stderr}`)
  return variables.data
}

export async function openSandboxEnvironment(server: ServerProcess): Promise<Record<string, string>> {
  return { OPEN_SANDBOX_DOMAIN: new URL(server.icebox.url).host, OPEN_SANDBOX_API_KEY: await keyOf(server) }
}

export const keyOf = async (server: ServerProcess): Promise<string> =>
  (await readFile(join(server.dataDirectory, 'key'), 'utf8')).trim()

/** Sets variables of this process; gives what puts them back. */
export function setEnvironment(variables: Record<string, string>): () => void {
  const before = Object.keys(variables).map((name) => [name, process.env[name]] as const)
  Object.assign(process.env, variables)
  return () => {
    for (const [name, value] of before)
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
  }
}

/** A package of the npm clients, as a program gets it by its name, and the calls made of it from here on. */
export async function npmClient(name: string) {
  const packages = join(await npmClients.path(soon()), 'node_modules')
  const from = createRequire(join(packages, 'program.js'))
  const calls = new Calls(join(packages, name, 'dist'))
  return { client: calls.watch(from(name)), calls }
}

export interface Ended {
  status: number | null
  stdout: string
  stderr: string
}

/** Runs a program to its end with these variables. Past the deadline, milliseconds, it is killed. */
export async function run(
  words: readonly string[],
  variables: Record<string, string>,
  { stdin = '', deadlineMs = 120_000, cwd }: { stdin?: string; deadlineMs?: number; cwd?: string } = {},
): Promise<Ended> {
  const [program = '', ...args] = words
  const child = spawn(program, args, {
    cwd,
    env: { ...process.env, ...variables },
    signal: AbortSignal.timeout(deadlineMs),
    killSignal: 'SIGKILL',
  })
  child.stdin.on('error', () => undefined)
  child.stdin.end(stdin)
  const said = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => {
      said[name] += text
    })
  const [status] = await once(child, 'close')
  return { status: typeof status === 'number' ? status : null, ...said }
}

/** A command of the npm clients' packages, with the Node that runs this, and what it needs in its environment. */
async function npmProgram(name: string): Promise<{ words: string[]; variables: Record<string, string> }> {
  const bin = join(await npmClients.path(soon()), 'node_modules', '.bin')
  const path = [bin, dirname(process.execPath), process.env.PATH ?? ''].join(delimiter)
  return { words: [process.execPath, join(bin, name)], variables: { PATH: path, NO_COLOR: '1' } }
}

export async function npmCommand(
  name: string,
  args: readonly string[],
  variables: Record<string, string>,
): Promise<Ended> {
  const program = await npmProgram(name)
  return run([...program.words, ...args], { ...program.variables, ...variables })
}

/** The same in a terminal, in which this is typed once what stands there ends with `prompt`. Gives all that stood there. */
export async function npmDialogue(
  name: string,
  args: readonly string[],
  variables: Record<string, string>,
  { prompt, typed }: { prompt: RegExp; typed: string },
): Promise<string> {
  const program = await npmProgram(name)
  const command = [...program.words, ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')
  const child = spawn('script', ['--quiet', '--return', '--command', command, '/dev/null'], {
    env: { ...process.env, ...program.variables, ...variables },
    signal: AbortSignal.timeout(120_000),
    killSignal: 'SIGKILL',
  })
  child.stdin.on('error', () => undefined)
  let seen = ''
  let isTyped = false
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    seen += text
    if (isTyped || !prompt.test(seen)) return
    isTyped = true
    child.stdin.write(typed)
  })
  const [status] = await once(child, 'close')
  if (status !== 0) throw new Error(`${command} ended with ${status}: ${seen}`)
  return seen
}

/**
 * Runs one of our Python programs with the clients' packages and gives the calls that it made of these modules.
 * Throws with what it said when it fails.
 */
export async function pythonProgram(
  modules: readonly string[],
  [program = '', ...args]: readonly string[],
  variables: Record<string, string>,
): Promise<CallList> {
  const python = join(await pythonClients.path(soon()), 'bin', 'python')
  const directory = await mkdtemp(join(tmpdir(), 'icebox-compat-'))
  const programs = join(import.meta.dirname, 'python')
  try {
    const result = join(directory, 'calls.json')
    const words = [python, join(programs, 'calls.py'), modules.join(','), join(programs, program), result, ...args]
    const { status, stdout, stderr } = await run(
      words,
      { PYTHONDONTWRITEBYTECODE: '1', ...variables },
      { cwd: directory, deadlineMs: DEADLINE_MS },
    )
    if (status !== 0) throw new Error(`${program} ended with ${status}:\n${stdout}${stderr}`)
    return CallsFile.parse(JSON.parse(await readFile(result, 'utf8')))
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}
