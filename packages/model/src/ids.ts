import { randomBytes, randomInt } from 'node:crypto'

declare const brand: unique symbol
type Branded<T extends string> = string & { readonly [brand]: T }

/** Names a sandbox for its whole life: 20 characters, `[a-z][a-z0-9]*`, valid as a DNS label. */
export type SandboxId = Branded<'SandboxId'>
/** Names one run of a sandbox: the container or VM behind it. A new one for every boot or restore. */
export type ExecutionId = Branded<'ExecutionId'>
/** Names a snapshot. */
export type SnapshotId = Branded<'SnapshotId'>
/** Names one lifecycle operation on one resource. */
export type OperationId = Branded<'OperationId'>

const LETTERS = 'abcdefghijklmnopqrstuvwxyz'
const ALPHABET = `${LETTERS}0123456789`
const LENGTH = 20
const PATTERN = /^[a-z][a-z0-9]{19}$/

/** 20 random characters (about 103 bits), a letter first: no two ids are prefixes of each other, which runsc needs. */
function generate(): string {
  let id = LETTERS[randomInt(LETTERS.length)] ?? 'a'
  while (id.length < LENGTH) {
    for (const byte of randomBytes(LENGTH)) {
      // 252 is the largest multiple of 36 that fits a byte: beyond it the modulo would favour some characters.
      if (byte < 252 && id.length < LENGTH) id += ALPHABET[byte % 36]
    }
  }
  return id
}

/** The id that stands for this number, which should have at least 128 random bits. */
function idOf(number: bigint): string {
  let rest = number
  const take = (alphabet: string): string => {
    const size = BigInt(alphabet.length)
    const character = alphabet[Number(rest % size)] ?? ''
    rest /= size
    return character
  }
  return take(LETTERS) + Array.from({ length: LENGTH - 1 }, () => take(ALPHABET)).join('')
}

/** The same for the same digest, of which it needs the hex. */
export const derivedSandboxId = (digest: string): SandboxId => idOf(BigInt(`0x${digest}`)) as SandboxId
export const newSandboxId = (): SandboxId => generate() as SandboxId
export const newExecutionId = (): ExecutionId => generate() as ExecutionId
export const newSnapshotId = (): SnapshotId => generate() as SnapshotId
export const newOperationId = (): OperationId => generate() as OperationId

/** Whether the text has the form of an id. It says nothing about whether something has that id. */
export const isId = (text: string): boolean => PATTERN.test(text)

/** Brands a text that was read from our own store or run directory; throws a TypeError when it does not have the form. */
function brandId(text: string): string {
  if (!isId(text)) throw new TypeError(`not an id: ${JSON.stringify(text)}`)
  return text
}
export const asSandboxId = (text: string): SandboxId => brandId(text) as SandboxId
export const asExecutionId = (text: string): ExecutionId => brandId(text) as ExecutionId
export const asSnapshotId = (text: string): SnapshotId => brandId(text) as SnapshotId
export const asOperationId = (text: string): OperationId => brandId(text) as OperationId
