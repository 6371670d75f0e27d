import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'

export interface RunscIdentity {
  /** As `runsc --version` prints it. */
  version: string
  /** sha256 of the program, hex. */
  digest: string
}

const VERSION_MS = 30_000
const known = new Map<string, Promise<RunscIdentity>>()

async function identify(path: string, signal: AbortSignal): Promise<RunscIdentity> {
  const hash = createHash('sha256')
  const [{ stdout }] = await Promise.all([
    promisify(execFile)(path, ['--version'], { signal, timeout: VERSION_MS }),
    pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash, { signal }),
  ])
  const version = /^runsc version (\S+)$/m.exec(stdout)?.[1]
  if (!version) throw new Error(`${path} does not say its version`)
  return { version, digest: hash.digest('hex') }
}

/** Which runsc this is; asked and read once for each file that was ever at the path. Throws when it cannot be run. */
export async function runscIdentity(path: string, signal: AbortSignal): Promise<RunscIdentity> {
  const { ino, mtimeMs, size } = await stat(path)
  const key = `${path} ${ino} ${mtimeMs} ${size}`
  const found = known.get(key)
  if (found) return found
  const fresh = identify(path, signal)
  known.set(key, fresh)
  fresh.catch(() => known.delete(key))
  return fresh
}

let features: Promise<string[]> | undefined

/** The CPU's feature flags, sorted. Memory can be restored only where all that its snapshot saw are present. */
export function cpuFeatures(): Promise<string[]> {
  features ??= readFile('/proc/cpuinfo', 'utf8').then((text) =>
    [...new Set((/^flags\s*:(.*)$/m.exec(text)?.[1] ?? '').trim().split(/\s+/))].filter(Boolean).sort(),
  )
  return features
}
