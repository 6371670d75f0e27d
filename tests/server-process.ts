import { type ChildProcess, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { BASE_IMAGE } from '@icebox/node'
import { type Exec, Icebox } from '@icebox/sdk'

const MAIN = join(import.meta.dirname, '../packages/cli/src/main.ts')
const START_MS = 300_000
const LOOK_MS = 20
/** Below the ephemeral ports of Linux, from 32768 on. */
const LASTING_PORTS = [20_000, 32_000] as const

/** A real `icebox up` in a process of its own, on a data directory of its own, to be killed and started again. */
export class ServerProcess implements AsyncDisposable {
  readonly dataDirectory: string
  readonly #port: number
  #flags: string[]
  #child: ChildProcess | undefined
  #icebox: Icebox | undefined

  private constructor(dataDirectory: string, port: number, flags: string[]) {
    this.dataDirectory = dataDirectory
    this.#port = port
    this.#flags = flags
  }

  /**
   * Without the template `base` unless other flags of `icebox up` are given. `keepAddress`: every start listens at the same
   * address, else each at one that the system gives.
   */
  static async start(name: string, options: { flags?: string[]; keepAddress?: boolean } = {}): Promise<ServerProcess> {
    const port = options.keepAddress === true ? await findLastingPort() : 0
    const directory = await mkdtemp(join(tmpdir(), `icebox-${name}-`))
    const server = new ServerProcess(directory, port, options.flags ?? ['--no-base'])
    await server.restart()
    return server
  }

  /** A client of the server as it runs now. */
  get icebox(): Icebox {
    if (this.#icebox === undefined) throw new Error('the server does not run')
    return this.#icebox
  }

  get pid(): number {
    const pid = this.#child?.pid
    if (pid === undefined) throw new Error('the server does not run')
    return pid
  }

  /** Starts it again after it ended, with other flags if they are given. Resolves when it answers. */
  async restart(flags = this.#flags): Promise<void> {
    this.#flags = flags
    const child = spawn(
      process.execPath,
      [MAIN, 'up', '--json', '--data', this.dataDirectory, '--listen', `127.0.0.1:${this.#port}`, ...this.#flags],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    )
    this.#child = child
    let said = ''
    child.stderr.on('data', (piece) => {
      said += piece
    })
    const deadline = performance.now() + START_MS
    for (;;) {
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Error(`the server ended as it started: ${said}`)
      if (performance.now() > deadline) throw new Error(`the server does not answer: ${said}`)
      const file = await readFile(join(this.dataDirectory, 'server.json'), 'utf8').catch(() => '{}')
      const { pid, url } = JSON.parse(file)
      if (pid === child.pid && typeof url === 'string') {
        const icebox = new Icebox({ url, dataDirectory: this.dataDirectory })
        if (
          await icebox.health().then(
            () => true,
            () => false,
          )
        ) {
          this.#icebox = icebox
          return
        }
      }
      await sleep(LOOK_MS)
    }
  }

  /** SIGKILL: nothing in it gets to do anything more. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL')
  }

  /** Asks it to end in this way and waits until it has. */
  async down(mode: 'pause' | 'keep' | 'kill'): Promise<void> {
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    await this.icebox.shutdown(mode)
    await ended
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
  }

  /** Deletes every sandbox, ends the server and removes its data, whatever state a failed test left it in. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      const child = this.#child
      if (child === undefined || child.exitCode !== null || child.signalCode !== null) await this.restart()
      await this.down('kill')
    } finally {
      await this.#end('SIGKILL')
      await rm(this.dataDirectory, { recursive: true, force: true })
    }
  }
}

/**
 * A free port that the system gives to nobody meanwhile: of those below what it hands out by itself, where a client that tries
 * again and again to reach a server that is away could even be connected to itself.
 */
async function findLastingPort(): Promise<number> {
  for (;;) {
    const port = randomInt(...LASTING_PORTS)
    const server = createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!isFree) continue
    server.close()
    await once(server, 'close')
    return port
  }
}

/** A template named `base` with nothing started. */
export async function buildBase(icebox: Icebox, size: { memoryMiB?: number; diskMiB?: number } = {}): Promise<void> {
  const image = await icebox.images.pull(BASE_IMAGE)
  await icebox.templates.build({ name: 'base', image: image.digest, size })
}

/** What a command that has to work writes to stdout, without the last line end. */
export async function output(exec: Exec): Promise<string> {
  const { exitCode, signal, stdout, stderr } = await exec
  if (exitCode !== 0) throw new Error(`a command ended with ${exitCode ?? signal}: ${stderr.trim() || stdout.trim()}`)
  return stdout.trimEnd()
}

/** Waits until the condition gives something. */
export async function eventually<T>(
  look: () => Promise<T | undefined>,
  what: string,
  milliseconds = 30_000,
): Promise<T> {
  const deadline = performance.now() + milliseconds
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (performance.now() > deadline) throw new Error(`this did not come about in ${milliseconds} ms: ${what}`)
    await sleep(LOOK_MS)
  }
}
