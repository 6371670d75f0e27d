import { IceboxError, isIceboxError } from '@icebox/sdk'
import { COUNT_PORT } from './counter.ts'
import { HalfDone } from './recorder.ts'
import { call, LONG_SECONDS, type Wanted, type Way } from './way.ts'

const ENVD_PORT = 49_983
/** What a status says for sure. Whatever else comes leaves open how far it came. */
const CODES: Record<number, IceboxError['code']> = {
  404: 'NotFound',
  409: 'Conflict',
  429: 'TooManyRequests',
  500: 'Internal',
}

/** As E2B's clients do it: their routes, their service for files in the sandbox, and its ports by the gateway. */
export class E2bWay implements Way {
  readonly #url: string
  readonly #apiKey: string

  constructor(url: string, apiKey: string) {
    this.#url = url
    this.#apiKey = apiKey
  }

  async create({ key, template, from, wakes }: Wanted): Promise<string> {
    const { text } = await this.#ask('POST', '/sandboxes', {
      headers: { 'idempotency-key': key },
      json: {
        ...{ templateID: from ?? template, metadata: { key }, secure: false },
        ...{ timeout: LONG_SECONDS, autoPause: true, autoResume: { enabled: wakes } },
      },
    })
    return String(JSON.parse(text).sandboxID)
  }

  async pause(sandbox: string): Promise<void> {
    await this.#ask('POST', `/sandboxes/${sandbox}/pause`)
  }

  async resume(sandbox: string): Promise<void> {
    const resumed = this.#ask('POST', `/sandboxes/${sandbox}/connect`, { json: { timeout: LONG_SECONDS } })
    // It is refused, too, when the sandbox was resumed and is being deleted by then.
    await resumed.catch((thrown: unknown) => {
      throw isIceboxError(thrown) ? new HalfDone(thrown.code) : thrown
    })
  }

  async endIn(sandbox: string, seconds: number): Promise<void> {
    await this.#ask('POST', `/sandboxes/${sandbox}/timeout`, { json: { timeout: seconds } })
  }

  async delete(sandbox: string): Promise<void> {
    await this.#ask('DELETE', `/sandboxes/${sandbox}`)
  }

  async read(sandbox: string, file: string): Promise<string | null> {
    const { status, text } = await this.#inside(sandbox, 'GET', ENVD_PORT, this.#files(file), { missing: true })
    return status === 404 ? null : text
  }

  async upload(sandbox: string, file: string, lines: string[]): Promise<void> {
    const headers = { 'content-type': 'application/octet-stream' }
    await this.#inside(sandbox, 'POST', ENVD_PORT, this.#files(file), { headers, body: lines.join('') })
  }

  async count(sandbox: string): Promise<string> {
    return (await this.#inside(sandbox, 'GET', COUNT_PORT, '/')).text
  }

  #files(path: string): string {
    return `/files?${new URLSearchParams({ path, username: 'root' })}`
  }

  #inside(sandbox: string, method: string, port: number, path: string, options: Options = {}): Promise<Answer> {
    const headers = { 'e2b-sandbox-id': sandbox, 'e2b-sandbox-port': String(port), ...options.headers }
    return this.#ask(method, path, { ...options, headers })
  }

  async #ask(method: string, path: string, options: Options = {}): Promise<Answer> {
    const { headers, json, body, missing = false } = options
    let answer: Answer
    try {
      const response = await fetch(this.#url + path, {
        method,
        headers: {
          'x-api-key': this.#apiKey,
          ...(json === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        body: json === undefined ? (body ?? null) : JSON.stringify(json),
        ...call(),
      })
      answer = { status: response.status, text: await response.text() }
    } catch (thrown) {
      if (!(thrown instanceof TypeError)) throw thrown
      throw new IceboxError(undefined, { code: 'Unavailable', message: String(thrown.cause ?? thrown), remedy: '' })
    }
    const { status, text } = answer
    if (status < 400 || (missing && status === 404 && text.includes('does not exist'))) return answer
    const message = `${method} ${path} answered ${status}: ${text}`
    // Of a request that is not as it should be the load is to blame.
    if (status === 401 || status === 403 || (status === 400 && !text.includes('not running'))) throw new Error(message)
    throw new IceboxError(status, { code: CODES[status] ?? 'GuestFailed', message, remedy: '' })
  }
}

interface Options {
  headers?: Record<string, string>
  json?: unknown
  body?: string
  /** Whether an answer of 404 may be about the file. */
  missing?: boolean
}
interface Answer {
  status: number
  text: string
}
