import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { IceboxError } from '@icebox/model'
import { z } from 'zod'
import { isMissing, replaceSynced } from './durable.ts'

const SIGNING_KEY = 'signing-key'
const TRUSTED_KEYS = 'trusted-keys'

/** An Ed25519 public key: `ed25519:` and the 64 hex digits of its 32 bytes. */
export const PublicKey = z
  .string()
  .regex(/^ed25519:[0-9a-f]{64}$/, 'must be ed25519: and 64 hex digits')
  .brand('PublicKey')
export type PublicKey = z.infer<typeof PublicKey>

/** Who vouches for a record: `value` is the Ed25519 signature, by `key`, of the text of its checksum. */
export const Signature = z.strictObject({ key: PublicKey, value: z.string().regex(/^[0-9a-f]{128}$/) })
export type Signature = z.infer<typeof Signature>

export interface TrustedKey {
  readonly key: PublicKey
  /** What the one who trusted it calls it; may be empty. */
  readonly name: string
}

/** The key of one installation, and whom it trusts besides itself. Made by `openKeyring`. */
export interface Keyring {
  readonly publicKey: PublicKey
  sign(checksum: string): Signature
  /**
   * `what` names the record in the message. Throws SnapshotCorrupt (the signature is not one of this key and checksum),
   * SnapshotUntrusted (none, or of a key that is not trusted).
   */
  check(checksum: string, signature: Signature | undefined, what: string): void
}

function publicKeyOf(key: KeyObject): PublicKey {
  const { x } = key.export({ format: 'jwk' })
  return PublicKey.parse(`ed25519:${Buffer.from(x ?? '', 'base64url').toString('hex')}`)
}

const keyObject = (key: PublicKey): KeyObject =>
  createPublicKey({
    key: { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(key.slice('ed25519:'.length), 'hex').toString('base64url') },
    format: 'jwk',
  })

async function readSigningKey(directory: string): Promise<KeyObject | undefined> {
  const file = join(directory, SIGNING_KEY)
  try {
    const key = createPrivateKey(await readFile(file, 'utf8'))
    if (key.asymmetricKeyType !== 'ed25519') throw new TypeError(`it is ${key.asymmetricKeyType}`)
    return key
  } catch (thrown) {
    if (isMissing(thrown)) return undefined
    throw new IceboxError('InvalidArgument', `${file} does not hold an Ed25519 key: ${String(thrown)}`, {
      remedy:
        'Put the right file back from a backup. Without it, remove the file: the server makes a new key, and snapshots signed by the old one need `icebox key trust`.',
      cause: thrown,
    })
  }
}

async function makeSigningKey(directory: string): Promise<KeyObject> {
  const { privateKey } = generateKeyPairSync('ed25519')
  const text = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  await replaceSynced(join(directory, SIGNING_KEY), text, join(directory, 'tmp', SIGNING_KEY))
  return privateKey
}

function parseTrusted(text: string, file: string): TrustedKey[] {
  return text.split('\n').flatMap((line, index) => {
    if (line.trim() === '' || line.startsWith('#')) return []
    const [key, ...name] = line.trim().split(/\s+/)
    const parsed = PublicKey.safeParse(key)
    if (!parsed.success)
      throw new IceboxError('InvalidArgument', `line ${index + 1} of ${file} does not begin with a public key`, {
        remedy: 'Correct the line, or remove it.',
      })
    return [{ key: parsed.data, name: name.join(' ') }]
  })
}

// Read anew each time, since `icebox key trust` writes it beside a running server; only for foreign keys, so seldom.
function trustedIn(directory: string): TrustedKey[] {
  const file = join(directory, TRUSTED_KEYS)
  try {
    return parseTrusted(readFileSync(file, 'utf8'), file)
  } catch (thrown) {
    if (isMissing(thrown)) return []
    throw thrown
  }
}

/** The keyring of a data directory that this process has open; makes the key at first. Throws InvalidArgument (damaged). */
export async function openKeyring(directory: string): Promise<Keyring> {
  const own = (await readSigningKey(directory)) ?? (await makeSigningKey(directory))
  const publicKey = publicKeyOf(own)
  return {
    publicKey,
    sign: (checksum) => ({ key: publicKey, value: sign(null, Buffer.from(checksum), own).toString('hex') }),
    check(checksum, signature, what) {
      if (signature === undefined)
        throw new IceboxError('SnapshotUntrusted', `${what} is not signed`, {
          remedy: 'Use one that an Icebox has signed: export it again, or take another snapshot.',
        })
      const { key, value } = signature
      if (!verify(null, Buffer.from(checksum), keyObject(key), Buffer.from(value, 'hex')))
        throw new IceboxError('SnapshotCorrupt', `${what} is damaged or forged: its signature does not fit`)
      if (key !== publicKey && !trustedIn(directory).some((each) => each.key === key))
        throw new IceboxError('SnapshotUntrusted', `${what} is signed by ${key}, which is not trusted here`, {
          details: { key },
        })
    },
  }
}

/** The keys of a data directory, which another process may have open. Throws NotFound (none made yet), InvalidArgument. */
export async function readKeys(directory: string): Promise<{ publicKey: PublicKey; trusted: TrustedKey[] }> {
  const own = await readSigningKey(directory)
  if (own === undefined)
    throw new IceboxError('NotFound', `${directory} is not a data directory with a signing key`, {
      remedy: 'Name the data directory of a server that was started once (--data or ICEBOX_DATA).',
    })
  return { publicKey: publicKeyOf(own), trusted: trustedIn(directory) }
}

/** Trusts what `key` signs from now on; a server that is running does so at once. Throws as `readKeys`. */
export async function trustKey(directory: string, { key, name }: TrustedKey): Promise<void> {
  const { publicKey, trusted } = await readKeys(directory)
  if (key === publicKey) return
  const oneLine = name.replace(/\s+/g, ' ').trim()
  await writeTrusted(directory, [...trusted.filter((each) => each.key !== key), { key, name: oneLine }])
}

/**
 * Trusts it no more. What was imported before stays usable: it carries this installation's own signature.
 * Throws NotFound (it was not trusted) and as `readKeys`.
 */
export async function distrustKey(directory: string, key: PublicKey): Promise<void> {
  const { trusted } = await readKeys(directory)
  const rest = trusted.filter((each) => each.key !== key)
  if (rest.length === trusted.length)
    throw new IceboxError('NotFound', `${key} is not among the trusted keys`, {
      remedy: 'See `icebox key show` for those that are.',
    })
  await writeTrusted(directory, rest)
}

async function writeTrusted(directory: string, keys: TrustedKey[]): Promise<void> {
  const text = keys.map(({ key, name }) => `${`${key} ${name}`.trim()}\n`).join('')
  // Not in tmp/, which a starting server empties.
  await replaceSynced(join(directory, TRUSTED_KEYS), text, join(directory, `${TRUSTED_KEYS}.${process.pid}`))
}
