import { crc32 } from 'node:zlib'

/** Frames on the guest link, as docs/reference/guest-link.md specifies them. Knows nothing of the transport. */
export const MAGIC = Buffer.from([0xf1, 0x49, 0x43, 0x45])
export const VERSION = 1
export const HEADER = 28
export const MAX_PAYLOAD = 32 * 1024
/** The message goes on in the next frame of its channel. */
export const MORE = 1
/** Zero bytes that end any half frame. */
export const PADDING = HEADER + MAX_PAYLOAD

export const KIND = {
  attach: 1,
  attached: 2,
  open: 3,
  reply: 4,
  error: 5,
  data: 6,
  credit: 7,
  end: 8,
  close: 9,
  event: 10,
} as const

export interface Frame {
  kind: number
  flags: number
  epoch: number
  channel: number
  /** From the parser: a view of what it was fed, to be read before it is asked for the next frame. */
  payload: Uint8Array
}

/** One frame. The payload must not be longer than MAX_PAYLOAD. */
export function encodeFrame(frame: Frame): Buffer {
  const { payload } = frame
  if (payload.length > MAX_PAYLOAD) throw new RangeError(`a payload of ${payload.length} bytes`)
  const bytes = Buffer.allocUnsafe(HEADER + payload.length)
  MAGIC.copy(bytes)
  bytes.writeUInt8(VERSION, 4)
  bytes.writeUInt8(frame.kind, 5)
  bytes.writeUInt16LE(frame.flags, 6)
  bytes.writeUInt32LE(frame.epoch, 8)
  bytes.writeUInt32LE(frame.channel, 12)
  bytes.writeUInt32LE(payload.length, 16)
  bytes.writeUInt32LE(crc32(payload), 20)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 24)), 24)
  bytes.set(payload, HEADER)
  return bytes
}

/** A message in as many frames as it needs. */
export function* encodeMessage(kind: number, epoch: number, channel: number, message: Uint8Array): Generator<Buffer> {
  let rest = message
  while (rest.length > MAX_PAYLOAD) {
    yield encodeFrame({ kind, flags: MORE, epoch, channel, payload: rest.subarray(0, MAX_PAYLOAD) })
    rest = rest.subarray(MAX_PAYLOAD)
  }
  yield encodeFrame({ kind, flags: 0, epoch, channel, payload: rest })
}

/** Where the next header may begin: at the magic, at what may become it, else at the end. */
function nextMagic(buffer: Buffer): number {
  const found = buffer.indexOf(MAGIC)
  if (found >= 0) return found
  for (let at = Math.max(0, buffer.length - MAGIC.length + 1); at < buffer.length; at += 1)
    if (buffer.compare(MAGIC, 0, buffer.length - at, at) === 0) return at
  return buffer.length
}

/**
 * Finds frames in a stream that may hold anything. What is not a sound frame is skipped and counted. Because the header has a
 * checksum of its own, a damaged payload is dropped whole: nothing inside it is ever taken for a frame. What it is fed stays the
 * caller's.
 */
export class FrameParser {
  #buffer: Buffer = Buffer.alloc(0)
  /** Bytes skipped so far, padding included. */
  skipped = 0

  #skip(bytes: number): void {
    this.skipped += bytes
    this.#buffer = this.#buffer.subarray(bytes)
  }

  /** A caller that stops early takes up the rest by feeding nothing, or more. */
  *feed(bytes: Uint8Array): Generator<Frame> {
    let rest = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    try {
      // Only the frame that was cut in two is put together; copying all that came with it would double what large streams cost.
      const joint = this.#missing(rest)
      if (joint > 0) {
        this.#buffer = Buffer.concat([this.#buffer, rest.subarray(0, joint)])
        rest = rest.subarray(joint)
        yield* this.#frames()
      }
      if (rest.length > 0) this.#buffer = this.#buffer.length === 0 ? rest : Buffer.concat([this.#buffer, rest])
      rest = rest.subarray(rest.length)
      yield* this.#frames()
    } finally {
      // Whoever reads has one buffer for all that comes.
      this.#buffer = rest.length === 0 ? Buffer.from(this.#buffer) : Buffer.concat([this.#buffer, rest])
    }
  }

  /** How many of the fresh bytes end the frame that is held in part, as far as its header can be believed. */
  #missing(fresh: Buffer): number {
    const held = this.#buffer
    if (held.length === 0) return 0
    const head = held.length >= HEADER ? held : Buffer.concat([held, fresh.subarray(0, HEADER - held.length)])
    if (head.length < HEADER) return fresh.length
    return Math.min(Math.max(HEADER + head.readUInt32LE(16) - held.length, 0), fresh.length)
  }

  *#frames(): Generator<Frame> {
    for (;;) {
      const buffer = this.#buffer
      const at = nextMagic(buffer)
      if (at > 0) {
        this.#skip(at)
        continue
      }
      if (buffer.length < HEADER) return
      const length = buffer.readUInt32LE(16)
      if (crc32(buffer.subarray(0, 24)) !== buffer.readUInt32LE(24) || length > MAX_PAYLOAD) {
        this.#skip(1)
        continue
      }
      if (buffer.length < HEADER + length) return
      const payload = buffer.subarray(HEADER, HEADER + length)
      if (buffer[4] !== VERSION || crc32(payload) !== buffer.readUInt32LE(20)) {
        this.#skip(HEADER + length)
        continue
      }
      this.#buffer = buffer.subarray(HEADER + length)
      yield {
        kind: buffer.readUInt8(5),
        flags: buffer.readUInt16LE(6),
        epoch: buffer.readUInt32LE(8),
        channel: buffer.readUInt32LE(12),
        payload,
      }
    }
  }
}
