import { spawn } from 'node:child_process'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { IceboxError } from '@icebox/model'
import { exposeToOom } from '../oom.ts'

const CHUNK = 1_048_576
/** What an archive may ask for is up to 4 GiB; what xz makes without being told to asks for 65 MiB at most. */
const XZ_BOUNDS = ['--threads=1', '--memlimit-decompress=128MiB']
/** Of what xz says of itself. */
const MAX_SAID = 4096

export type Compression = 'none' | 'gzip' | 'zstd' | 'xz'

/** Bytes needed to tell. */
export const MAGIC_BYTES = 6

/** What the first bytes say. Throws `ImageInvalid` for what is known but not supported. */
export function compressionOf(start: Uint8Array): Compression {
  const magic = Buffer.from(start).toString('hex')
  if (magic.startsWith('1f8b')) return 'gzip'
  // zstd frames, and skippable frames before them.
  if (magic.startsWith('28b52ffd') || /^5[0-9a-f]2a4d18/.test(magic)) return 'zstd'
  if (magic.startsWith('fd377a585a00')) return 'xz'
  if (magic.startsWith('425a68'))
    throw new IceboxError(
      'ImageInvalid',
      'the archive is compressed with bzip2, which is not supported: use gzip, zstd or xz',
    )
  return 'none'
}

type Decompressor = Duplex | ((source: AsyncIterable<Buffer>) => AsyncGenerator<Buffer, void>)

/** The step of a pipeline that takes compressed bytes and gives plain ones; undefined when they are plain already. */
export function decompressor(compression: Compression): Decompressor | undefined {
  // The large chunks and the room for several let the thread pool decompress while another thread writes files.
  const sizes = { chunkSize: CHUNK, readableHighWaterMark: 4 * CHUNK }
  if (compression === 'gzip') return createGunzip(sizes)
  if (compression === 'zstd') return createZstdDecompress(sizes)
  return compression === 'xz' ? xz : undefined
}

/** By the program: Node has no xz. It dies with the thread that started it. */
async function* xz(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void> {
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', 'xz', '-dc', ...XZ_BOUNDS], {
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  exposeToOom(child)
  const ended = Promise.withResolvers<string>()
  child.once('error', (error) => ended.resolve(error.message))
  child.once('close', (code, killedBy) => ended.resolve(code === 0 ? '' : `ended with ${killedBy ?? code}`))
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(0, MAX_SAID)
  })
  // Why xz took no more is told by xz itself, unless it was the source that failed.
  const feeding = pipeline(source, child.stdin).catch((error: unknown) => error)
  try {
    for await (const chunk of child.stdout) yield chunk
    const failure = await ended.promise
    if (failure === '') return
    const fed = await feeding
    if (fed instanceof Error && 'code' in fed && fed.code !== 'EPIPE' && fed.code !== 'ERR_STREAM_PREMATURE_CLOSE')
      throw fed
    if (/failed to execute|ENOENT/.test(`${failure}${said}`))
      throw new IceboxError('Unavailable', 'xz is not installed, which unpacks .xz archives', {
        remedy: 'Install it as root: apt-get install xz-utils',
      })
    throw new IceboxError('ImageInvalid', `the archive cannot be decompressed: xz ${failure}: ${said.trim()}`)
  } finally {
    child.kill('SIGKILL')
  }
}
