import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { type ErrorCode, IceboxError } from '@icebox/model'
import { imageMemoryBytes } from './image-memory.ts'

const MIB = 1_048_576
/** Of the process's heap, besides what the image may take there: its code, and what is garbage. */
const HEAP_BASE_BYTES = 128 * MIB
/** Of what the process says on its way out. */
const MAX_SAID = 4096

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
  /** Of what is kept of the image. Default: by the memory of this machine. */
  memoryBytes?: number
  /** Of the heap of its process. Default: `memoryBytes` and some more. */
  heapBytes?: number
}

export type ProcessOptions = Omit<UnpackerOptions, 'memoryBytes' | 'heapBytes'> & { memoryBytes: number }

export interface Unpacked {
  /** Of the file. */
  sizeBytes: number
  /** Of the image. */
  digest: string
}

/** `finish` completes the file; `digest`: of the image, when it is known. */
export type ProcessRequest = UnpackJob | { do: 'finish'; digest?: string }

export type ProcessAnswer =
  | { say: 'progress'; bytes: number }
  | { say: 'done'; unpacked?: Unpacked }
  | {
      say: 'failed'
      code: ErrorCode
      message: string
      remedy: string
      details: Record<string, string | number | boolean>
    }

/**
 * Makes a file system of layers, in a process of its own with a bounded heap: whatever an image does to that, the caller lives on. It
 * dies with this process. One call at a time.
 */
export class Unpacker {
  readonly #process: ChildProcess
  /** Why the process has ended, once it has. */
  readonly #ended: Promise<IceboxError>

  constructor(options: UnpackerOptions) {
    const { memoryBytes = imageMemoryBytes(), ...others } = options
    const { heapBytes = memoryBytes + HEAP_BASE_BYTES, ...rest } = others
    const body = fileURLToPath(new URL('./unpack-process.ts', import.meta.url))
    const all: ProcessOptions = { ...rest, memoryBytes }
    const bounds = ['--core=0', 'setpriv', '--pdeathsig', 'KILL', '--', process.execPath]
    this.#process = fork(body, [JSON.stringify(all)], {
      execPath: 'prlimit',
      execArgv: [...bounds, `--max-old-space-size=${Math.ceil(heapBytes / MIB)}`],
      // Options for this process's Node are not for that one.
      env: { PATH: process.env.PATH },
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    })
    let said = ''
    this.#process.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-MAX_SAID)
    })
    const { promise, resolve } = Promise.withResolvers<IceboxError>()
    this.#ended = promise
    this.#process.once('error', (error) => resolve(IceboxError.from(error)))
    this.#process.once('close', (code, signal) => resolve(whyEnded(code, signal, said, memoryBytes)))
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
    if (unpacked === undefined) throw new IceboxError('Internal', 'the process that unpacks images gave no result')
    return unpacked
  }

  async #run(
    request: ProcessRequest,
    onBytes: (bytes: number) => void,
    signal: AbortSignal,
  ): Promise<Unpacked | undefined> {
    signal.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<Unpacked | undefined>()
    const answer = (message: ProcessAnswer) => {
      if (message.say === 'progress') onBytes(message.bytes)
      else if (message.say === 'done') resolve(message.unpacked)
      else reject(new IceboxError(message.code, message.message, { details: message.details, remedy: message.remedy }))
    }
    const abort = () => reject(signal.reason)
    this.#process.on('message', answer)
    void this.#ended.then(reject)
    signal.addEventListener('abort', abort, { once: true })
    try {
      this.#process.send(request, (error) => {
        // That it has ended says more than that it takes nothing.
        if (error !== null) void this.#ended.then(reject)
      })
      return await promise
    } finally {
      signal.removeEventListener('abort', abort)
      this.#process.off('message', answer)
    }
  }

  /** Ends the process, whatever it does. Resolves once it writes no more. */
  async close(): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.#ended
  }
}

function whyEnded(code: number | null, signal: string | null, said: string, memoryBytes: number): IceboxError {
  if (said.includes('out of memory'))
    return new IceboxError('ImageInvalid', 'unpacking the image takes more memory than an image may', {
      details: { limitBytes: memoryBytes },
      remedy: 'Use an image with fewer files or attributes.',
    })
  if (signal === 'SIGKILL')
    return new IceboxError('NoMemory', 'the kernel ended the process that unpacks the image, for want of memory')
  return new IceboxError('Internal', `the process that unpacks images has ended with ${signal ?? code}: ${said.trim()}`)
}
