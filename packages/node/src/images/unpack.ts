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
  | { do: 'finish' }

export interface Unpacked {
  /** Bytes of content, each inode once, in whole blocks of 4 KiB. */
  bytes: number
  /** Files, directories and all else. */
  entries: number
  /** Of the canonical tree; only when it was asked for. */
  digest?: string
}

export interface UnpackerOptions {
  /** An empty directory to unpack into. */
  root: string
  /** Whether `finish` gives the digest of the tree. */
  digest: boolean
  /** Bytes that will be needed in all on that file system for each byte unpacked. */
  spaceFactor: number
}

export type WorkerAnswer =
  | { say: 'progress'; bytes: number }
  | { say: 'done'; unpacked?: Unpacked }
  | { say: 'failed'; code: ErrorCode; message: string; details: Record<string, string | number | boolean> }

/** Puts a root file system together, in a worker thread. One job at a time. */
export class Unpacker {
  readonly #worker: Worker
  #exited: IceboxError | undefined

  constructor(options: UnpackerOptions) {
    this.#worker = new Worker(new URL('./unpack-worker.ts', import.meta.url), { workerData: options })
    this.#worker.on('error', (error) => {
      this.#exited = IceboxError.from(error)
    })
  }

  /**
   * Throws `ImageInvalid`, `NoSpace`. After any failure, and after an abort, only `close` may be called.
   * `onBytes` is given the bytes read so far of this archive as stored.
   */
  async run(job: UnpackJob, onBytes: (bytes: number) => void, signal: AbortSignal): Promise<Unpacked | undefined> {
    signal.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<Unpacked | undefined>()
    const answer = (message: WorkerAnswer) => {
      if (message.say === 'progress') onBytes(message.bytes)
      else if (message.say === 'done') resolve(message.unpacked)
      else reject(new IceboxError(message.code, message.message, { details: message.details }))
    }
    const exit = () =>
      reject(this.#exited ?? new IceboxError('Internal', 'the thread that unpacks images ended by itself'))
    const abort = () => reject(signal.reason)
    this.#worker.on('message', answer).once('exit', exit)
    signal.addEventListener('abort', abort, { once: true })
    try {
      this.#worker.postMessage(job)
      return await promise
    } finally {
      signal.removeEventListener('abort', abort)
      this.#worker.off('message', answer).off('exit', exit)
    }
  }

  /** Ends the thread, whatever it does. Resolves once it writes no more. */
  async close(): Promise<void> {
    await this.#worker.terminate()
  }
}
