import { Worker } from 'node:worker_threads'
import { type ErrorCode, IceboxError } from '@icebox/model'

/** A layer or whole tar archive in a file of this machine. */
export interface ArchiveFile {
  file: string
  /** Where in the file it lies; default: all of it. */
  offset?: number
  length?: number
  /** What its bytes, as stored, must have. Absent when that was checked already. */
  digest?: string
  /** What its bytes, decompressed, must have. */
  diffId?: string
}

export type UnpackJob =
  | ({ do: 'layer' } & ArchiveFile)
  | ({ do: 'archive' } & ArchiveFile)
  | { do: 'directory'; path: string }
  | { do: 'erofs'; file: string }
  | { do: 'user'; name: string }

/** What is to be made: `sizeBytes` of ext4, absent for one that leaves some room. */
export type Product = { format: 'erofs' } | { format: 'ext4'; sizeBytes?: number | undefined }

export interface UnpackerOptions {
  product: Product
  /** A file that does not exist yet. */
  output: string
  /** Whether the digest of the canonical tree is to be computed. */
  digest: boolean
}

export interface Unpacked {
  /** Of the file. */
  sizeBytes: number
  /** Of the image. */
  digest: string
}

/** `finish` completes the file; `digest`: of the image, when it is known. */
export type WorkerRequest = UnpackJob | { do: 'finish'; digest?: string }

export type WorkerAnswer =
  | { say: 'progress'; bytes: number }
  | { say: 'done'; unpacked?: Unpacked }
  | {
      say: 'failed'
      code: ErrorCode
      message: string
      remedy: string
      details: Record<string, string | number | boolean>
    }

/** Makes a file system of layers, in a worker thread. One call at a time. */
export class Unpacker {
  readonly #worker: Worker
  /** Why the thread has ended, once it has. */
  readonly #ended: Promise<IceboxError>

  constructor(options: UnpackerOptions) {
    // However this process was started, the thread starts as a program file.
    this.#worker = new Worker(new URL('./unpack-worker.ts', import.meta.url), { workerData: options, execArgv: [] })
    const { promise, resolve } = Promise.withResolvers<IceboxError>()
    this.#ended = promise
    this.#worker.once('error', (error) => resolve(IceboxError.from(error)))
    this.#worker.once('exit', () => resolve(new IceboxError('Internal', 'the thread that unpacks images has ended')))
  }

  /**
   * Puts a layer on top. `onBytes` is given the bytes read so far of this archive as stored.
   * Throws `ImageInvalid`, `NoSpace`. After any failure, and after an abort, only `close` may be called.
   */
  async apply(job: UnpackJob, onBytes: (bytes: number) => void, signal: AbortSignal): Promise<void> {
    await this.#run(job, onBytes, signal)
  }

  /** Completes the file, durably. Throws also `InvalidArgument`, when the size wanted is too small. */
  async finish(digest: string | undefined, signal: AbortSignal): Promise<Unpacked> {
    const request = digest === undefined ? ({ do: 'finish' } as const) : ({ do: 'finish', digest } as const)
    const unpacked = await this.#run(request, () => {}, signal)
    if (unpacked === undefined) throw new IceboxError('Internal', 'the thread that unpacks images gave no result')
    return unpacked
  }

  async #run(
    request: WorkerRequest,
    onBytes: (bytes: number) => void,
    signal: AbortSignal,
  ): Promise<Unpacked | undefined> {
    signal.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<Unpacked | undefined>()
    const answer = (message: WorkerAnswer) => {
      if (message.say === 'progress') onBytes(message.bytes)
      else if (message.say === 'done') resolve(message.unpacked)
      else reject(new IceboxError(message.code, message.message, { details: message.details, remedy: message.remedy }))
    }
    const abort = () => reject(signal.reason)
    this.#worker.on('message', answer)
    void this.#ended.then(reject)
    signal.addEventListener('abort', abort, { once: true })
    try {
      this.#worker.postMessage(request)
      return await promise
    } finally {
      signal.removeEventListener('abort', abort)
      this.#worker.off('message', answer)
    }
  }

  /** Ends the thread, whatever it does. Resolves once it writes no more. */
  async close(): Promise<void> {
    await this.#worker.terminate()
  }
}
