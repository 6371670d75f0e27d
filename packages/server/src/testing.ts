import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { Control } from '@icebox/control'
import { DEFAULT_PROJECT } from '@icebox/model'
import { openServer, type Server, type ServerOptions } from './server.ts'

export const KEY = `e2b_${'0123456789abcdef'.repeat(2)}01234567`

/**
 * For tests of what must be refused before the control plane is asked: it knows one key, and any other use of it fails the
 * request with Internal.
 */
export const NO_CONTROL = new Proxy({} as Control, {
  get: (_, name) => {
    if (name === 'keys') return { authenticate: async (key: string) => (key === KEY ? OWNER : undefined) }
    if (name === 'project') return () => NO_CONTROL
    // What stands on it asks nothing until it is asked itself.
    if (name === 'traffic' || name === 'installation') return NO_CONTROL
    if (name === 'name') return DEFAULT_PROJECT
    throw new Error(`the control plane was asked for ${String(name)}`)
  },
})
const OWNER = { project: DEFAULT_PROJECT, installation: true }

export interface TestServer extends Server {
  /** The lines of the log so far. */
  readonly log: Record<string, unknown>[]
  readonly shutdowns: string[]
  readonly temporaryDirectory: string
  /** Calls with the key. */
  call(method: string, path: string, init?: RequestInit): Promise<Response>
}

/** A server on a free port, closed after the test. */
export async function serve(t: TestContext, options: Partial<ServerOptions> = {}): Promise<TestServer> {
  const temporaryDirectory = await mkdtemp(join(tmpdir(), 'icebox-server-'))
  const log: Record<string, unknown>[] = []
  const shutdowns: string[] = []
  const server = await openServer({
    control: NO_CONTROL,
    listen: { host: '127.0.0.1', port: 0 },
    info: { version: '0.0.0-test', driver: 'none', dataDirectory: temporaryDirectory, pid: process.pid },
    temporaryDirectory,
    withinSpace: (content) => content,
    log: { write: (line) => log.push(JSON.parse(line)) },
    onShutdown: (mode) => shutdowns.push(mode),
    ...options,
  }).catch(async (thrown: unknown) => {
    await rm(temporaryDirectory, { recursive: true })
    throw thrown
  })
  t.after(async () => {
    await server.close(AbortSignal.abort())
    await rm(temporaryDirectory, { recursive: true })
  })
  return {
    ...server,
    log,
    shutdowns,
    temporaryDirectory,
    call: (method, path, init = {}) =>
      fetch(server.url + path, { method, ...init, headers: { 'x-api-key': KEY, ...init.headers } }),
  }
}

/** Resolves when the condition holds. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
}
