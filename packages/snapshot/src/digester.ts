import { Worker } from 'node:worker_threads'
import type { DigestAnswer, DigestRequest } from './digest-worker.ts'

/** Computes sha256 digests of files in one thread of the lowest priority, one after another. */
export class Digester {
  #worker: Worker | undefined
  readonly #jobs = new Map<number, PromiseWithResolvers<string>>()
  #last = 0
  #closed = false

  /** `sha256:<hex>` of the file. Throws once it is closed. */
  async digest(path: string): Promise<string> {
    // Who goes on to the next file must not start the thread again.
    if (this.#closed) throw closed()
    const worker = this.#started()
    const job = ++this.#last
    const answer = Promise.withResolvers<string>()
    this.#jobs.set(job, answer)
    // Only while there is work does the thread keep the process alive.
    worker.ref()
    worker.postMessage({ job, path } satisfies DigestRequest)
    try {
      return await answer.promise
    } finally {
      this.#jobs.delete(job)
      if (this.#jobs.size === 0) worker.unref()
    }
  }

  #started(): Worker {
    if (this.#worker) return this.#worker
    const worker = new Worker(new URL('./digest-worker.ts', import.meta.url), { execArgv: [] })
    worker.on('message', (message: DigestAnswer) => {
      const job = this.#jobs.get(message.job)
      if ('digest' in message) job?.resolve(message.digest)
      else job?.reject(message.error)
    })
    worker.on('error', (error) => this.#end(error instanceof Error ? error : new Error(String(error))))
    this.#worker = worker
    return worker
  }

  #end(error: Error): void {
    this.#worker = undefined
    for (const job of this.#jobs.values()) job.reject(error)
  }

  /** Ends the thread; what it had not finished fails. */
  async close(): Promise<void> {
    this.#closed = true
    const worker = this.#worker
    this.#end(closed())
    await worker?.terminate()
  }
}

const closed = () => new Error('the digester was closed')
