import type { IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ExecEvent, ExecExit, ExecInfo, ExecInput } from '@icebox/model'
import { Acknowledgements } from './acknowledgements.ts'
import { hasId, isObject, isWireError } from './answers.ts'
import { whileAway } from './away.ts'
import { type Connection, NDJSON, route } from './connection.ts'
import type { CallOptions } from './deadline.ts'
import { guestFailed, IceboxError, isIceboxError, notUnderstood } from './error.ts'
import { Queue } from './queue.ts'
import { ExecStdin } from './stdin.ts'
import { LineDecoder } from './streams.ts'

export interface ExecOptions extends Omit<ExecInput, 'argv' | 'stdin'>, CallOptions {
  /** true keeps it open for `exec.stdin`; text or bytes are all it gets; default: end of file at once. */
  stdin?: boolean | string | Uint8Array | undefined
}

/** What a process did, once it has ended. */
export interface ExecResult extends ExecExit {
  /** Decoded as UTF-8. Empty when the output was read as events. */
  stdout: string
  stderr: string
  /** Output is missing because nobody read it in time, which `overflow: 'drop'` allows. */
  truncated: boolean
}

/** Bytes of output held here while nobody reads; beyond it the server is no longer read. */
const HIGH_WATER = 1024 * 1024
/** Streams that may be cut one after the other without a line between them. */
const SILENT_TRIES = 3
const ATTACH_AGAIN_AFTER_MS = 100

/**
 * A process in a sandbox. Await it for its result, or iterate it for its output as it comes and last its exit; one of the two.
 * It runs whether or not anybody listens; when the connection breaks, the SDK attaches again where it was.
 */
export class Exec implements PromiseLike<ExecResult>, AsyncIterable<ExecEvent> {
  /** Resolves with what is known at its start; rejects when it could not be started. */
  readonly started: Promise<ExecInfo>
  readonly stdin: ExecStdin
  readonly #connection: Connection
  readonly #sandbox: string
  readonly #call: CallOptions
  readonly #queue = new Queue<ExecEvent>(HIGH_WATER)
  readonly #next: { stdout: number | undefined; stderr: number | undefined }
  readonly #arrived: { stdout?: number; stderr?: number } = {}
  readonly #tellStarted: (info: ExecInfo) => void
  #info: ExecInfo | undefined
  #exit: ExecExit | undefined
  readonly #over: Promise<void>
  readonly #detaching = new AbortController()
  #consumer: 'none' | 'events' | 'result' = 'none'
  #result: Promise<ExecResult> | undefined
  #silentTries = 0
  #acknowledgements: Acknowledgements | undefined

  /** @internal */
  constructor(
    connection: Connection,
    sandbox: string,
    source: { request: ExecInput } | { id: string; stdout: number | undefined; stderr: number | undefined },
    call: CallOptions,
  ) {
    this.#connection = connection
    this.#sandbox = sandbox
    const { signal } = this.#detaching
    this.#call = { ...call, signal: call.signal === undefined ? signal : AbortSignal.any([call.signal, signal]) }
    this.#next = 'id' in source ? { stdout: source.stdout, stderr: source.stderr } : { stdout: 0, stderr: 0 }
    const { promise, resolve, reject } = Promise.withResolvers<ExecInfo>()
    this.started = promise
    this.#tellStarted = resolve
    // A caller that only awaits the result must not be killed by this promise; it gets the same error there.
    promise.catch(() => {})
    this.stdin = new ExecStdin(connection, sandbox, promise)
    const open =
      'id' in source
        ? () => this.#attach(source.id)
        : () =>
            connection.stream('POST', route('sandboxes', sandbox, 'execs'), {
              ...this.#call,
              json: source.request,
              headers: { accept: NDJSON },
              query: { acknowledge: true },
            })
    const running = this.#run(open).finally(() => this.#acknowledgements?.stop())
    this.#over = running.then(
      () => this.#queue.end(),
      (thrown: unknown) => {
        const error: unknown = signal.aborted ? signal.reason : thrown
        reject(error)
        this.#queue.fail(error)
        throw error
      },
    )
    this.#over.catch(() => {})
  }

  // Typed by the interface itself, so that callers may treat it as any other promise.
  readonly then: Promise<ExecResult>['then'] = (onResult, onError) => {
    this.#result ??= this.#collect()
    return this.#result.then(onResult, onError)
  }

  /** Leaving the loop early detaches. */
  async *[Symbol.asyncIterator](): AsyncGenerator<ExecEvent> {
    if (this.#consumer !== 'none') throw new TypeError('the output of an exec can be read only once')
    this.#consumer = 'events'
    try {
      yield* this.#events()
    } finally {
      if (this.#exit === undefined) this.detach()
    }
  }

  async resize(cols: number, rows: number, call: CallOptions = {}): Promise<void> {
    await this.#post('resize', { cols, rows }, call)
  }

  /** Sends a signal to its process group. */
  async kill(signal = 'SIGTERM', call: CallOptions = {}): Promise<void> {
    await this.#post('signal', { signal }, call)
  }

  /** Stops listening. The process goes on and can be attached to again by its id. */
  detach(): void {
    this.#queue.end()
    this.#detaching.abort(detachedFrom())
  }

  /** @internal Gives it all its stdin. A process may end without having read it all; any other failure is that of the exec. */
  feed(data: string | Uint8Array, call: CallOptions): void {
    this.stdin.close(data, call).catch((thrown: unknown) => {
      if (!isIceboxError(thrown, 'InvalidState')) this.#detaching.abort(thrown)
    })
  }

  /** Who asks for more has done with what came before: until then the guest keeps it for whoever attaches again. */
  async *#events(): AsyncGenerator<ExecEvent> {
    for await (const event of this.#queue) {
      yield event
      if (event.type !== 'output') continue
      this.#arrived[event.stream] = event.offset + event.data.byteLength
      this.#acknowledgements?.took(event.data.byteLength)
    }
  }

  async #post(what: string, json: object, call: CallOptions): Promise<void> {
    const { id } = await this.started
    await this.#connection.send('POST', route('sandboxes', this.#sandbox, 'execs', id, what), { ...call, json })
  }

  async #collect(): Promise<ExecResult> {
    const output: { stdout: Uint8Array[]; stderr: Uint8Array[] } = { stdout: [], stderr: [] }
    let truncated = false
    if (this.#consumer === 'events') await this.#over
    else {
      this.#consumer = 'result'
      for await (const event of this.#events()) {
        if (event.type === 'output') output[event.stream].push(event.data)
        else if (event.type === 'gap') truncated = true
      }
    }
    if (this.#exit === undefined) throw detachedFrom()
    const text = (pieces: Uint8Array[]) => Buffer.concat(pieces).toString('utf8')
    return { ...this.#exit, stdout: text(output.stdout), stderr: text(output.stderr), truncated }
  }

  async #run(open: () => Promise<IncomingMessage>): Promise<void> {
    let response = await open()
    while (!(await this.#read(response))) {
      if (this.#info === undefined)
        throw guestFailed('the connection broke before the server had said that the process was started')
      response = await this.#attachAgain(this.#info.id)
    }
  }

  /** Reads one stream to its end. True when there is no more to come, false when it was cut. */
  #read(response: IncomingMessage): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const decoder = new LineDecoder()
      response.setEncoding('utf8')
      response.on('data', (text: string) => {
        try {
          for (const line of decoder.push(text)) this.#take(line)
        } catch (thrown) {
          reject(thrown)
          response.destroy()
          return
        }
        if (!this.#queue.full) return
        response.pause()
        this.#queue.onRoom = () => response.resume()
      })
      const over = () => {
        if (this.#exit === undefined && this.#call.signal?.aborted === true) reject(this.#call.signal.reason)
        else resolve(this.#exit !== undefined)
      }
      response.on('error', over)
      response.on('end', over)
      response.on('close', over)
    })
  }

  #take(line: Record<string, unknown>): void {
    this.#silentTries = 0
    if (line.type === 'started' && hasId<ExecInfo>(line.exec)) {
      this.#info = line.exec
      if (typeof line.attachment === 'string') this.#acknowledge(line.exec.id, line.attachment)
      this.#tellStarted(line.exec)
    } else if (line.type === 'output' && isStream(line.stream) && typeof line.data === 'string') {
      this.#takeOutput(line.stream, Number(line.offset), Buffer.from(line.data, 'base64'))
    } else if (line.type === 'gap' && isStream(line.stream)) {
      const gap = { type: 'gap', stream: line.stream, from: Number(line.from), to: Number(line.to) } as const
      this.#next[line.stream] = gap.to
      this.#queue.push(gap, 0)
    } else if (line.type === 'exit' && isObject(line.exit)) {
      this.#exit = { timedOut: line.exit.timedOut === true }
      if (typeof line.exit.exitCode === 'number') this.#exit.exitCode = line.exit.exitCode
      if (typeof line.exit.signal === 'string') this.#exit.signal = line.exit.signal
      this.#queue.push({ type: 'exit', exit: this.#exit }, 0)
    } else if (line.type === 'error' && isWireError(line.error)) {
      // A server that goes down says so; the process goes on, and the next server knows it.
      if (line.error.code !== 'Unavailable' || this.#info === undefined) throw new IceboxError(undefined, line.error)
    } else throw notUnderstood(`the line ${JSON.stringify(line).slice(0, 80)} among the output of a process`)
  }

  /** Bytes that were seen before, which a stream that was attached to again may repeat, are left out. */
  #takeOutput(stream: 'stdout' | 'stderr', offset: number, data: Uint8Array): void {
    const seen = Math.max(0, (this.#next[stream] ?? 0) - offset)
    if (seen >= data.byteLength) return
    this.#next[stream] = offset + data.byteLength
    const fresh = data.subarray(seen)
    this.#queue.push({ type: 'output', stream, offset: offset + seen, data: fresh }, fresh.byteLength)
  }

  /** Until it is told so, the guest keeps what came by this stream: the server may die with it halfway. */
  #acknowledge(id: string, attachment: string): void {
    this.#acknowledgements?.stop()
    this.#acknowledgements = new Acknowledgements(async () => {
      await this.#connection.send('POST', route('sandboxes', this.#sandbox, 'execs', id, 'acknowledge'), {
        json: { attachment, ...this.#arrived },
      })
    })
  }

  #attach(id: string): Promise<IncomingMessage> {
    return this.#connection.stream('GET', route('sandboxes', this.#sandbox, 'execs', id, 'output'), {
      ...this.#call,
      headers: { accept: NDJSON },
      query: { stdoutFrom: this.#next.stdout, stderrFrom: this.#next.stderr, acknowledge: true },
    })
  }

  async #attachAgain(id: string): Promise<IncomingMessage> {
    this.#silentTries += 1
    let cause: unknown
    if (this.#silentTries <= SILENT_TRIES) {
      await sleep(ATTACH_AGAIN_AFTER_MS)
      this.#call.signal?.throwIfAborted()
      try {
        return await whileAway(() => this.#attach(id), { signal: this.#call.signal })
      } catch (thrown) {
        if (!isIceboxError(thrown, 'Unavailable')) throw thrown
        cause = thrown
      }
    }
    throw guestFailed(`the connection to the server broke and process ${id} could not be attached to again`, cause)
  }
}

const detachedFrom = () => guestFailed('the process was detached from before its exit was seen')
const isStream = (name: unknown): name is 'stdout' | 'stderr' => name === 'stdout' || name === 'stderr'
