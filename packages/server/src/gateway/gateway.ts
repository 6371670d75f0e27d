import { type ClientRequest, type IncomingMessage, request as requestGuest, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Control } from '@icebox/control'
import { IceboxError, isError } from '@icebox/model'
import { ClientGone } from '../client.ts'
import { DEADLINE } from '../deadline.ts'
import { linger } from '../linger.ts'
import type { Strangers } from '../strangers.ts'
import { type Limits, Turnstile } from '../turnstile.ts'
import { type Address, addressOf } from './address.ts'
import { Credentials } from './credentials.ts'
import { cut, exchange, passBack, tooLate } from './exchange.ts'
import type { Facade } from './facade.ts'
import { toGuest } from './headers.ts'
import { maskedHost } from './masked-host.ts'
import { dial, Pool } from './pool.ts'
import { refusalOf, refuse } from './refusal.ts'
import { join, offer } from './tunnel.ts'

export interface GatewayOptions {
  control: Pick<Control, 'keys' | 'traffic'>
  /** Domains whose names `<port>-<id>.<domain>` are ports of sandboxes, besides `localhost`. */
  domains?: readonly string[]
  /** What stands on some ports of every sandbox instead of what listens there inside. */
  facades?: ReadonlyMap<number, Facade>
  /** Requests and upgraded connections open at once, to each sandbox and in all. */
  limits?: Limits
  /** Milliseconds a service may take from the end of a request until the head of its answer. */
  headDeadline?: number
  /** Callers without a valid key. Default: nobody is counted. */
  strangers?: Strangers
  /** Told of what should not happen. */
  onFault?: (error: IceboxError) => void
}

const LIMITS: Limits = { each: 512, inAll: 4096 }
const WORDS = { each: 'connections to this sandbox', inAll: 'connections to sandboxes' }
/** Milliseconds until a sandbox can be reached: it may have to be resumed, or a save of it awaited. */
const REACH = 660_000
/** Milliseconds until a service has begun to answer: some think for long. */
const HEAD = 600_000
/** Milliseconds for which answers under way may go on when the server closes. */
const GRACE = 3_000
/** Bytes of the head of an answer. */
const HEAD_SIZE = 65_536

/** A request on its way. */
interface Visit {
  readonly request: IncomingMessage
  readonly address: Address
  readonly credentials: Credentials
  /** Aborted when the client goes away or the server closes. */
  readonly over: AbortController
}

/** The one way to the ports of sandboxes. */
export class Gateway {
  readonly #options: GatewayOptions
  readonly #headDeadline: number
  readonly #turnstile: Turnstile
  readonly #pool = new Pool()
  readonly #answers = new Set<ServerResponse>()
  readonly #tunnels = new Set<Duplex>()
  #closed = false

  constructor(options: GatewayOptions) {
    this.#options = options
    this.#headDeadline = options.headDeadline ?? HEAD
    this.#turnstile = new Turnstile(options.limits ?? LIMITS, WORDS)
  }

  /** The port a request is for, undefined when it is for the API. Throws `InvalidArgument` for one that is half right. */
  addressOf(request: IncomingMessage): Address | undefined {
    return addressOf(request, this.#options.domains ?? [])
  }

  isFacade({ port }: Address): boolean {
    return this.#options.facades?.has(port) ?? false
  }

  /** Answers a request, whatever happens. */
  async serve(request: IncomingMessage, response: ServerResponse, address: Address): Promise<void> {
    let isStranger = false
    const facade = this.#options.facades?.get(address.port)
    try {
      const leave = this.#enter(address)
      if (response.destroyed) leave()
      else response.once('close', leave)
      const credentials = await this.#credentials(request)
      isStranger = !credentials.hasKey
      const forget = credentials.onceRevoked(() => cut(response))
      if (response.destroyed) forget()
      else response.once('close', forget)
      if (facade === undefined) {
        await this.#pass(request, response, address, credentials)
        return
      }
      const { sandbox, path } = address
      response.once('finish', () => {
        // How a façade refuses: no token, or no such sandbox.
        if (isStranger && [401, 502].includes(response.statusCode)) this.#options.strangers?.refused(request)
      })
      await facade(request, response, {
        sandbox,
        path,
        key: credentials.hasKey && (await this.#isFor(credentials, sandbox)),
      })
    } catch (thrown) {
      if (isStranger && facade === undefined && isRefusal(thrown)) this.#options.strangers?.refused(request)
      this.#fail(thrown, request, response, address)
    }
  }

  /**
   * Answers a request to upgrade: joins the socket with the guest's, or answers as a plain request, by the response that `respond`
   * makes on the same socket.
   */
  async upgrade(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    address: Address,
    respond: () => ServerResponse,
  ): Promise<void> {
    const over = new AbortController()
    let isStranger = false
    let leave: (() => void) | undefined
    let response: ServerResponse | undefined
    // What fails while the guest's answer is passed on is told by the same one.
    const answer = () => {
      response ??= respond()
      return response
    }
    socket.once('close', () => over.abort(new ClientGone()))
    try {
      leave = this.#enter(address)
      this.#tunnels.add(socket)
      const credentials = await this.#credentials(request)
      isStranger = !credentials.hasKey
      socket.once(
        'close',
        credentials.onceRevoked(() => socket.destroy()),
      )
      const outgoing = await this.#begin({ request, address, credentials, over }, { fresh: true, upgrade: true })
      const word = await offer(outgoing, this.#headDeadline, over.signal)
      if (word.taken) await join(socket, head, word, address)
      else await passBack({ request, response: answer(), address }, outgoing, word.answer)
    } catch (thrown) {
      if (isStranger && isRefusal(thrown)) this.#options.strangers?.refused(request)
      if (!socket.destroyed) this.#fail(thrown, request, answer(), address)
    } finally {
      leave?.()
      this.#tunnels.delete(socket)
    }
  }

  /** Ends upgraded connections at once and answers under way after a moment; refuses what comes. */
  close(): void {
    this.#closed = true
    for (const socket of this.#tunnels) socket.destroy()
    const end = () => {
      for (const response of this.#answers) response.destroy()
      this.#pool.close()
    }
    setTimeout(end, GRACE).unref()
  }

  #enter({ sandbox }: Address): () => void {
    if (this.#closed) throw new IceboxError('Unavailable', 'the server is shutting down', { remedy: 'Start it again.' })
    return this.#turnstile.enter(sandbox, this.#options.control.traffic.projectOf(sandbox) ?? '')
  }

  /** Throws `TooManyRequests` to who has none and was refused too often. */
  async #credentials(request: IncomingMessage): Promise<Credentials> {
    const credentials = await Credentials.of(request, this.#options.control.keys)
    if (!credentials.hasKey) this.#options.strangers?.check(request)
    return credentials
  }

  /** Not for a sandbox that is not there, which the façade says in its own way. */
  async #isFor(credentials: Credentials, id: string): Promise<boolean> {
    try {
      return credentials.isFor(await this.#options.control.traffic.find(id, AbortSignal.timeout(DEADLINE.read)))
    } catch (thrown) {
      if (isError(thrown, 'NotFound')) return false
      throw thrown
    }
  }

  async #pass(
    request: IncomingMessage,
    response: ServerResponse,
    address: Address,
    credentials: Credentials,
  ): Promise<void> {
    const over = new AbortController()
    const gone = () => over.abort(new ClientGone())
    response.once('close', gone)
    if (response.destroyed) gone()
    this.#answers.add(response)
    try {
      const visit = { request, address, credentials, over }
      const begin = (fresh: boolean) => this.#begin(visit, { fresh, upgrade: false })
      await exchange({ request, response, address, begin, headDeadline: this.#headDeadline })
    } finally {
      this.#answers.delete(response)
    }
  }

  /** Begins a request to the service inside, for who may; `fresh`: on a connection of its own. */
  async #begin(visit: Visit, { fresh, upgrade }: { fresh: boolean; upgrade: boolean }): Promise<ClientRequest> {
    const { request, address, credentials, over } = visit
    const { sandbox: id, port, path } = address
    const { traffic } = this.#options.control
    const late = setTimeout(() => over.abort(tooLate('The sandbox could not be reached', REACH)), REACH)
    try {
      const found = await traffic.find(id, over.signal)
      // Before it is resumed: who may not come in does not wake it.
      if (!found.spec.publicTraffic) credentials.requireFor(found, traffic)
      const { sandbox, execution, guest } = await traffic.reach(id, over.signal)
      over.signal.throwIfAborted()
      const host = maskedHost(sandbox, port)
      const secret = credentials.secretHeaders(sandbox, traffic)
      const options = {
        method: request.method,
        path,
        headers: toGuest({ request, address, host, secret, upgrade }),
        maxHeaderSize: HEAD_SIZE,
      }
      if (!fresh) return requestGuest({ ...options, agent: this.#pool.agent(execution, guest, port) })
      const connection = await dial(guest, port, over.signal)
      return requestGuest({ ...options, createConnection: () => connection })
    } finally {
      clearTimeout(late)
    }
  }

  #fail(thrown: unknown, request: IncomingMessage, response: ServerResponse, address: Address): void {
    if (thrown instanceof ClientGone) return
    const error = IceboxError.from(thrown)
    if (error.code === 'Internal') this.#options.onFault?.(error)
    if (response.headersSent) cut(response)
    else refuse(request, response, refusalOf(error, address))
    linger(request)
  }
}

/** Whether somebody was refused who may have no business here; a port that is not open is one that somebody waits for. */
const isRefusal = (thrown: unknown): boolean =>
  isError(thrown, 'Forbidden') || (isError(thrown, 'NotFound') && thrown.details.port === undefined)
