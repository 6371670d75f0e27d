import { createHash, type Hash } from 'node:crypto'
import { IceboxError } from '@icebox/model'
import { z } from 'zod'

/** `sha256:<hex>` or `sha512:<hex>`: also safe as part of a file name once the colon is gone. */
export const Digest = z
  .string()
  .regex(/^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/, 'must be sha256:<64 hex digits> or sha512:<128 hex digits>')

/** The hex of a digest. Throws `InvalidArgument` when it is not one. */
export function hexOf(digest: string): string {
  if (!Digest.safeParse(digest).success)
    throw new IceboxError('InvalidArgument', `${JSON.stringify(digest)} is not a digest`, { details: { digest } })
  return digest.slice(digest.indexOf(':') + 1)
}

/** Takes bytes as they pass and tells at the end whether they were the right ones. */
export class DigestCheck {
  readonly #expected: string
  readonly #hash: Hash

  constructor(expected: string) {
    this.#expected = expected
    this.#hash = createHash(expected.slice(0, expected.indexOf(':')))
  }

  update(chunk: Uint8Array): void {
    this.#hash.update(chunk)
  }

  /** Throws `ImageInvalid` when the bytes were others. Call once. */
  finish(what: string): void {
    const actual = `${this.#expected.slice(0, this.#expected.indexOf(':'))}:${this.#hash.digest('hex')}`
    if (actual !== this.#expected)
      throw new IceboxError('ImageInvalid', `${what} has the digest ${actual} but should have ${this.#expected}`, {
        details: { expected: this.#expected, actual },
      })
  }
}

export function checkDigest(expected: string, bytes: Uint8Array, what: string): void {
  const check = new DigestCheck(expected)
  check.update(bytes)
  check.finish(what)
}

export const sha256Of = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

/** The same UUID for the same image, so that the same bytes are made of it. */
export function uuidOf(digest: string): Buffer {
  const uuid = createHash('sha256').update(digest).digest().subarray(0, 16)
  // Version 8 (made as one likes) of the usual variant.
  uuid.writeUInt8((uuid.readUInt8(6) & 0x0f) | 0x80, 6)
  uuid.writeUInt8((uuid.readUInt8(8) & 0x3f) | 0x80, 8)
  return uuid
}
