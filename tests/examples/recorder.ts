import { once } from 'node:events'
import { createServer, type IncomingMessage, request as send } from 'node:http'
import { pipeline } from 'node:stream'

/** A request as it was seen on its way. */
export interface Seen {
  method: string
  /** Without the query. */
  path: string
  /** Names of query parameters and, in lower case, of headers. */
  parameters: Set<string>
}

/** Stands before a server, passes everything on as it is, and remembers what was asked for. */
export class Recorder implements AsyncDisposable {
  readonly seen: Seen[] = []
  readonly #target: URL
  readonly #server = createServer()
  #url = ''

  private constructor(target: string) {
    this.#target = new URL(target)
    this.#server.on('request', (request, response) => {
      const asking = this.#pass(request)
      asking.on('response', (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.rawHeaders)
        response.flushHeaders()
        pipeline(answer, response, () => undefined)
      })
      asking.on('error', () => response.destroy())
      response.on('close', () => asking.destroy())
      pipeline(request, asking, () => undefined)
    })
    this.#server.on('upgrade', (request, socket) => {
      const asking = this.#pass(request)
      const refuse = () => socket.destroy()
      asking.on('error', refuse).on('response', refuse)
      asking.on('upgrade', (answer, other) => {
        socket.write(`HTTP/1.1 101 ${answer.statusMessage}\r\n${lines(answer.rawHeaders)}\r\n`)
        pipeline(socket, other, socket, () => undefined)
      })
      asking.end()
    })
  }

  static async before(url: string): Promise<Recorder> {
    const recorder = new Recorder(url)
    recorder.#server.listen(0, '127.0.0.1')
    await once(recorder.#server, 'listening')
    const address = recorder.#server.address()
    if (typeof address !== 'object' || address === null) throw new Error('a recorder has no address')
    recorder.#url = `http://127.0.0.1:${address.port}`
    return recorder
  }

  get url(): string {
    return this.#url
  }

  #pass(request: IncomingMessage) {
    const { pathname, searchParams } = new URL(request.url ?? '', this.#url)
    const { method = '' } = request
    const parameters = new Set([...searchParams.keys(), ...Object.keys(request.headers)])
    this.seen.push({ method, path: pathname, parameters })
    return send(this.#target, { method, path: request.url, headers: request.rawHeaders, agent: false })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }
}

const lines = (raw: readonly string[]): string =>
  raw.map((text, index) => (index % 2 === 0 ? `${text}: ` : `${text}\r\n`)).join('')
