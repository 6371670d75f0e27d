import { createHash } from 'node:crypto'
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { setPriority } from 'node:os'
import { parentPort } from 'node:worker_threads'

/** A thread that hashes whole files when the processor has nothing better to do. Talks to `digester.ts` alone. */
export interface DigestRequest {
  job: number
  path: string
}
export type DigestAnswer = { job: number } & ({ digest: string } | { error: Error })

const SLICE = 1_048_576
const SLICES_BETWEEN_LOOKS = 64

// Linux takes 0 for the calling thread, not the process.
setPriority(0, 19)
const buffer = Buffer.allocUnsafe(SLICE)

function digest(path: string): string {
  const fd = openSync(path, 'r')
  try {
    const hash = createHash('sha256')
    for (let slice = 1; ; slice++) {
      // Reads are synchronous so that they happen in this thread too and have its priority.
      const read = readSync(fd, buffer)
      if (read === 0) return `sha256:${hash.digest('hex')}`
      hash.update(buffer.subarray(0, read))
      if (slice % SLICES_BETWEEN_LOOKS === 0 && fstatSync(fd).nlink === 0) throw new Error(`${path} was removed`)
    }
  } finally {
    closeSync(fd)
  }
}

parentPort?.on('message', ({ job, path }: DigestRequest) => {
  let answer: DigestAnswer
  try {
    answer = { job, digest: digest(path) }
  } catch (thrown) {
    answer = { job, error: thrown instanceof Error ? thrown : new Error(String(thrown)) }
  }
  parentPort?.postMessage(answer)
})
