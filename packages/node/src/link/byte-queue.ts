import { ITEM_BYTES } from '@icebox/model'

/** Small pieces that wait are put together up to this many bytes, so that they cost little more than what is in them. */
const JOINED = 4096

/** Bytes from a guest that wait for their reader. What it is given is copied. `cost` is what it takes of memory. */
export class ByteQueue {
  readonly #pieces: Buffer[] = []
  /** How much of the last piece's memory is used, when more fits into it. */
  #tail: { memory: Buffer; used: number } | undefined
  #cost = 0

  get cost(): number {
    return this.#cost
  }
  get isEmpty(): boolean {
    return this.#pieces.length === 0
  }

  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    const tail = this.#tail
    if (tail !== undefined && tail.used + bytes.length <= tail.memory.length) {
      tail.memory.set(bytes, tail.used)
      tail.used += bytes.length
      this.#pieces[this.#pieces.length - 1] = tail.memory.subarray(0, tail.used)
      return
    }
    // Who keeps up is not made to pay for company.
    const room = this.isEmpty ? bytes.length : Math.max(bytes.length, JOINED)
    // Of its own: a few bytes within memory that others share would keep all of that.
    const memory = Buffer.allocUnsafeSlow(room)
    memory.set(bytes)
    this.#tail = { memory, used: bytes.length }
    this.#pieces.push(memory.subarray(0, bytes.length))
    this.#cost += room + ITEM_BYTES
  }

  shift(): Buffer | undefined {
    const piece = this.#pieces.shift()
    if (piece === undefined) return undefined
    this.#cost -= piece.buffer.byteLength + ITEM_BYTES
    if (this.isEmpty) this.#tail = undefined
    return piece
  }

  clear(): void {
    this.#pieces.length = 0
    this.#tail = undefined
    this.#cost = 0
  }
}
