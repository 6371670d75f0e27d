import { createHash, randomBytes } from 'node:crypto'
import { chmod, type FileHandle, mkdir, open, readdir, readFile, realpath, rm, rmdir, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { IceboxError } from '@icebox/model'
import { isMissing, replaceSynced, sync } from './durable.ts'
import { tryLock } from './linux/libc.ts'

const DIRECTORIES = ['images', 'blobs', 'snapshots', 'bundles', 'events', 'logs', 'tmp'] as const
const KEY = /^e2b_[0-9a-f]{40}$/

/** An open data directory: all that is durable, locked for this process. Paths are absolute and without symlinks. */
export interface DataDirectory {
  readonly path: string
  /** The SQLite file of the store. */
  readonly database: string
  readonly images: string
  readonly blobs: string
  readonly snapshots: string
  readonly bundles: string
  readonly events: string
  /** What sandboxes have said. */
  readonly logs: string
  /** On the same file system as the others, so that what is made here can be renamed there. Empty when opened. */
  readonly tmp: string
  /** `/run/icebox/<hash>`: what dies with the machines. */
  readonly run: string
  /** The API key; made at first. Throws InvalidArgument when the file holds something else. */
  readOrCreateKey(): Promise<string>
  /** 32 random bytes from which the tokens of sandboxes are derived, made at the first call. */
  readOrCreateTokenSecret(): Promise<Buffer>
  /** Gives up the lock, and the run directory when no machine runs on. */
  close(): Promise<void>
}

const TOKEN_SECRET_BYTES = 32

/** ICEBOX_DATA, else `/var/lib/icebox` for root and `$XDG_DATA_HOME/icebox` for others. */
export function defaultDataDirectory(env: NodeJS.ProcessEnv = process.env): string {
  if (env.ICEBOX_DATA) return resolve(env.ICEBOX_DATA)
  if (process.geteuid?.() === 0) return '/var/lib/icebox'
  return join(env.XDG_DATA_HOME || join(homedir(), '.local', 'share'), 'icebox')
}

/** The run directory of the data directory with this real path. */
export const runDirectoryOf = (realPath: string): string =>
  join('/run/icebox', createHash('sha256').update(realPath).digest('hex').slice(0, 16))

/** The API key in a data directory, without opening it; undefined when there is none yet. Throws as `readOrCreateKey`. */
export async function readKey(directory: string): Promise<string | undefined> {
  const file = join(directory, 'key')
  let content: string
  try {
    content = await readFile(file, 'utf8')
  } catch (thrown) {
    if (isMissing(thrown)) return undefined
    throw thrown
  }
  const key = content.trim()
  if (!KEY.test(key))
    throw new IceboxError('InvalidArgument', `${file} does not hold an API key (e2b_ and 40 hex digits)`, {
      remedy: 'Remove the file: the server makes a new key at its next start.',
    })
  return key
}

/** Makes a directory ours alone. Throws InvalidArgument when another user owns it. */
async function own(path: string): Promise<void> {
  const { uid, mode } = await stat(path)
  if (uid !== process.geteuid?.())
    throw new IceboxError(
      'InvalidArgument',
      `${path} belongs to user ${uid}, and this process runs as ${process.geteuid?.()}`,
      {
        remedy: 'Run as the user who owns it, change its owner, or use another data directory.',
      },
    )
  if ((mode & 0o777) !== 0o700) await chmod(path, 0o700)
}

/** A directory with other things in it is left alone: it would be closed to everybody else. */
async function refuseForeign(path: string): Promise<void> {
  const entries = await readdir(path, { withFileTypes: true }).catch((thrown: unknown) => {
    throw new IceboxError('InvalidArgument', `${path} cannot be a data directory: ${String(thrown)}`, { cause: thrown })
  })
  const found = entries.filter((entry) => entry.name !== 'lost+found')
  if (found.length > 0 && !found.some((entry) => entry.name === 'lock' && entry.isFile()))
    throw new IceboxError('InvalidArgument', `${path} is not empty and is not a data directory of Icebox`, {
      remedy: 'Use an empty or a new directory (--data or ICEBOX_DATA).',
    })
}

async function lock(directory: string): Promise<FileHandle> {
  // Not inherited by child processes, so the lock goes with this process however that ends.
  const handle = await open(join(directory, 'lock'), 'a+', 0o600)
  try {
    if (!tryLock(handle.fd)) {
      const holder = (await handle.readFile('utf8')).trim()
      throw new IceboxError(
        'Conflict',
        `the data directory ${directory} is in use by ${holder ? `process ${holder}` : 'another process'}`,
        {
          remedy: 'Use the server that is running, end it with `icebox down`, or start with another --data.',
          ...(holder && { details: { pid: Number(holder) } }),
        },
      )
    }
    await handle.truncate(0)
    await handle.writeFile(`${process.pid}\n`)
    return handle
  } catch (thrown) {
    await handle.close()
    throw thrown
  }
}

/**
 * Opens a data directory for this process alone, making what is missing. Throws Conflict that names the process that has it
 * open, InvalidArgument (not ours, of another user, not a directory), Unavailable (no run directory: not root).
 */
export async function openDataDirectory(path: string): Promise<DataDirectory> {
  await mkdir(path, { recursive: true, mode: 0o700 }).catch((thrown: unknown) => {
    throw new IceboxError('InvalidArgument', `the data directory cannot be made: ${String(thrown)}`, { cause: thrown })
  })
  const real = await realpath(path)
  await refuseForeign(real)
  await own(real)
  const handle = await lock(real)
  try {
    for (const name of DIRECTORIES) {
      await mkdir(join(real, name), { recursive: true, mode: 0o700 })
      await own(join(real, name))
    }
    await sync(real)
    const tmp = join(real, 'tmp')
    // With the lock held, whatever is there was left by a server that died. Its helpers may still be writing there.
    for (const name of await readdir(tmp)) await rm(join(tmp, name), { recursive: true, force: true, maxRetries: 5 })
    const run = runDirectoryOf(real)
    await mkdir(run, { recursive: true, mode: 0o700 }).catch((thrown: unknown) => {
      throw new IceboxError('Unavailable', `the run directory cannot be made: ${String(thrown)}`, {
        cause: thrown,
        remedy: 'Run the server as root.',
      })
    })
    await own(run)
    return {
      path: real,
      database: join(real, 'icebox.db'),
      images: join(real, 'images'),
      blobs: join(real, 'blobs'),
      snapshots: join(real, 'snapshots'),
      bundles: join(real, 'bundles'),
      events: join(real, 'events'),
      logs: join(real, 'logs'),
      tmp,
      run,
      readOrCreateKey: () => readOrCreateKey(real),
      readOrCreateTokenSecret: () => readOrCreateTokenSecret(real),
      async close() {
        // Only when nothing runs on: then it is empty.
        await rmdir(run).catch(() => {})
        await handle.close()
      },
    }
  } catch (thrown) {
    await handle.close()
    throw thrown
  }
}

async function readOrCreateKey(directory: string): Promise<string> {
  const file = join(directory, 'key')
  const existing = await readKey(directory)
  if (existing !== undefined) {
    await chmod(file, 0o600)
    return existing
  }
  const key = `e2b_${randomBytes(20).toString('hex')}`
  // Renamed into place whole: a client may be looking for it.
  await replaceSynced(file, `${key}\n`, join(directory, 'tmp', 'key'))
  return key
}

async function readOrCreateTokenSecret(directory: string): Promise<Buffer> {
  const file = join(directory, 'token-secret')
  try {
    const secret = Buffer.from((await readFile(file, 'utf8')).trim(), 'hex')
    if (secret.length === TOKEN_SECRET_BYTES) return secret
  } catch (thrown) {
    if (!isMissing(thrown)) throw thrown
    const secret = randomBytes(TOKEN_SECRET_BYTES)
    await replaceSynced(file, `${secret.toString('hex')}\n`, join(directory, 'tmp', 'token-secret'))
    return secret
  }
  throw new IceboxError('InvalidArgument', `${file} does not hold ${TOKEN_SECRET_BYTES} bytes in hex`, {
    remedy: 'Bring the file back from a backup, or remove it: then all tokens of sandboxes change at the next start.',
  })
}
