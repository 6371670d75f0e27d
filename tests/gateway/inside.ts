import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { type IncomingHttpHeaders, type IncomingMessage, type RequestOptions, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { CreateSandbox, type CreateSandboxInput, type ExecSession } from '@icebox/model'
import { BASE_IMAGE } from '@icebox/node'
import { openServer, type Server, type ServerOptions } from '@icebox/server'
import { withinSpace } from '@icebox/snapshot'
import { openParts, type Parts } from '../faults/parts.ts'

const DEADLINE = 120_000
const SERVICES = join(import.meta.dirname, 'services.py')

/** For tests of the gateway: a whole Icebox in this process, with sandboxes in which services listen. */
export class Inside implements AsyncDisposable {
  readonly #directory: string
  readonly parts: Parts
  readonly #servers: Server[] = []

  private constructor(directory: string, parts: Parts) {
    this.#directory = directory
    this.parts = parts
  }

  static async open(): Promise<Inside> {
    const directory = await mkdtemp(join(tmpdir(), 'icebox-gateway-'))
    const inside = new Inside(directory, await openParts(directory))
    try {
      const { templates } = inside.parts.project
      const size = { memoryMiB: 256, diskMiB: 512 }
      await (
        await templates.build(
          { name: 'base', image: BASE_IMAGE, size, env: {} },
          () => {},
          AbortSignal.timeout(DEADLINE),
        )
      ).settled
      return inside
    } catch (thrown) {
      await inside[Symbol.asyncDispose]()
      throw thrown
    }
  }

  async serve(options: Partial<ServerOptions> = {}): Promise<Server> {
    const { data, node, control } = this.parts
    const server = await openServer({
      control,
      listen: { host: '127.0.0.1', port: 0 },
      info: { version: 'test', driver: node.driver.name, dataDirectory: data.path, pid: process.pid },
      temporaryDirectory: data.tmp,
      withinSpace,
      log: { write: () => undefined },
      onShutdown: () => undefined,
      ...options,
    })
    this.#servers.push(server)
    return server
  }

  /** A sandbox whose ports are public unless said otherwise, with the services listening. Gives its id. */
  async sandbox(body: Partial<CreateSandboxInput> = {}): Promise<string> {
    const { sandboxes } = this.parts.project
    const signal = AbortSignal.timeout(DEADLINE)
    const asked = CreateSandbox.parse({ template: 'base', publicTraffic: true, ...body })
    const { metadata } = await (await sandboxes.create(asked, signal)).settled
    await this.start(metadata.name, ['python3', '-c', await readFile(SERVICES, 'utf8')])
    return metadata.name
  }

  /** Starts a program and waits for the first it says. */
  async start(id: string, argv: string[]): Promise<ExecSession> {
    const session = await this.parts.project.sandboxes.exec(id, { argv }, AbortSignal.timeout(DEADLINE))
    for await (const event of session.events) {
      if (event.type === 'output' && event.stream === 'stdout') break
      const said = event.type === 'output' ? Buffer.from(event.data).toString() : JSON.stringify(event)
      throw new Error(`the program inside ended: ${said}`)
    }
    return session
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) await server.close(AbortSignal.timeout(10_000))
    await this.parts.control.close('kill', AbortSignal.timeout(DEADLINE))
    await this.parts.data.close()
    await rm(this.#directory, { recursive: true, force: true })
  }
}

export interface Answer {
  status: number
  headers: IncomingHttpHeaders
  text: string
  /** As JSON: what the gateway or the service says. */
  body: Told
}
export interface Told {
  code?: number
  message?: string
  sandboxId?: string
  port?: number
  method?: string
  path?: string
  headers?: [string, string][]
  size?: number
  sha256?: string
  /** Number of the connection inside. */
  connection?: number
  /** Connections that are open inside. */
  open?: number
  /** Bytes the service could write of its last download. */
  written?: number
}

/** Sends a request; its body is the caller's to read. */
export function send(url: string, options: RequestOptions = {}, body?: Uint8Array | string): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const outgoing = request(url, { agent: false, ...options })
  outgoing.once('response', resolve).once('error', reject)
  outgoing.end(body)
  return promise
}

/** Sends a request and reads the whole of its answer. */
export async function call(url: string, options: RequestOptions = {}, body?: Uint8Array | string): Promise<Answer> {
  const response = await send(url, options, body)
  const content = await text(response)
  const json = /json/.test(String(response.headers['content-type']))
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    text: content,
    body: json && content !== '' ? JSON.parse(content) : {},
  }
}
