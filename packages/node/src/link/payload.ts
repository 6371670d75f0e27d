import { IceboxError } from '@icebox/model'

/** The fields within a payload: little-endian integers, and byte strings with a u32 length before them. */
export class PayloadWriter {
  readonly #parts: Uint8Array[] = []

  u8(value: number): this {
    this.#parts.push(Uint8Array.of(value))
    return this
  }
  u16(value: number): this {
    const part = Buffer.allocUnsafe(2)
    part.writeUInt16LE(value)
    return this.raw(part)
  }
  u32(value: number): this {
    const part = Buffer.allocUnsafe(4)
    part.writeUInt32LE(value)
    return this.raw(part)
  }
  u64(value: number | bigint): this {
    const part = Buffer.allocUnsafe(8)
    part.writeBigUInt64LE(BigInt(value))
    return this.raw(part)
  }
  raw(bytes: Uint8Array): this {
    this.#parts.push(bytes)
    return this
  }
  text(value: string): this {
    const bytes = Buffer.from(value)
    return this.u32(bytes.length).raw(bytes)
  }
  list<T>(items: readonly T[], item: (writer: this, value: T) => void): this {
    this.u32(items.length)
    for (const value of items) item(this, value)
    return this
  }
  option<T>(value: T | undefined, item: (writer: this, value: T) => void): this {
    this.u8(value === undefined ? 0 : 1)
    if (value !== undefined) item(this, value)
    return this
  }
  done(): Buffer {
    return Buffer.concat(this.#parts)
  }
}

/** Longest text and list that is read: what one request of a client can have put there, and what the kernel has as the longest value. */
const MAX_TEXT = 1024 * 1024
const MAX_LIST = 262_144
/** Of words for people, characters that are shown. */
const MAX_WORDS = 1000

/** Reads what PayloadWriter wrote. Throws `GuestFailed` when the bytes end before the field. */
export class PayloadReader {
  #rest: Buffer
  /** Whether a field was asked for that is not all there. */
  wasCutShort = false

  constructor(bytes: Uint8Array) {
    this.#rest = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  take(length: number): Buffer {
    if (length > this.#rest.length) {
      this.wasCutShort = true
      throw new IceboxError('GuestFailed', 'the guest sent a message that is cut short')
    }
    const head = this.#rest.subarray(0, length)
    this.#rest = this.#rest.subarray(length)
    return head
  }
  u8(): number {
    return this.take(1).readUInt8()
  }
  u32(): number {
    return this.take(4).readUInt32LE()
  }
  i32(): number {
    return this.take(4).readInt32LE()
  }
  /** A count or an offset. */
  u64(): number {
    return Number(this.take(8).readBigUInt64LE())
  }
  i64(): bigint {
    return this.take(8).readBigInt64LE()
  }
  /** What is not UTF-8 becomes U+FFFD: names of files may be any bytes. */
  text(): string {
    const length = this.u32()
    if (length > MAX_TEXT) throw new IceboxError('GuestFailed', 'the guest sent a text that is too long')
    return this.take(length).toString('utf8')
  }
  /** Text that is shown to people: cut off, and without what a terminal would take for orders. */
  words(): string {
    const text = this.take(this.u32())
      .subarray(0, 4 * MAX_WORDS)
      .toString('utf8')
      .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\ufffd')
    return text.length > MAX_WORDS ? `${text.slice(0, MAX_WORDS)}…` : text
  }
  /** Of more than `kept` items the first so many. */
  list<T>(item: (reader: this) => T, kept = MAX_LIST): T[] {
    const length = this.count()
    const items: T[] = []
    for (let n = 0; n < length; n += 1) {
      const value = item(this)
      if (n < kept) items.push(value)
    }
    return items
  }
  /** How many items of a list follow. */
  count(): number {
    const length = this.u32()
    if (length > MAX_LIST) throw new IceboxError('GuestFailed', 'the guest sent a list that is too long')
    if (length > this.#rest.length) {
      this.wasCutShort = true
      throw new IceboxError('GuestFailed', 'the guest sent a list that is cut short')
    }
    return length
  }
  option<T>(item: (reader: this) => T): T | undefined {
    return this.u8() === 0 ? undefined : item(this)
  }
  get isEmpty(): boolean {
    return this.#rest.length === 0
  }
  get length(): number {
    return this.#rest.length
  }
  rest(): Buffer {
    return this.#rest
  }
}
