import { createCipheriv, createHash } from 'node:crypto'
import type { TarEntry } from './tar.ts'

/**
 * The files of the benchmark's image: the same for the same numbers on every machine. Sizes and kinds are spread as in images
 * of language runtimes: most files small text, most bytes in few large files that hardly compress.
 */

export interface ImageShape {
  files: number
  /** Bytes of content in all layers together. */
  bytes: number
  layers: number
}

const POOL_BYTES = 4 * 2 ** 20
const FILES_PER_DIRECTORY = 40
/** Of all files, and of all bytes. */
const SIZES = [
  { files: 0.7, bytes: 0.08, noise: 0.05 },
  { files: 0.25, bytes: 0.27, noise: 0.3 },
  { files: 0.05, bytes: 0.65, noise: 0.75 },
] as const

/** Numbers in [0, 1) that look random and are always the same. */
function* numbers(seed: string): Generator<number, never> {
  for (let block = 0; ; block += 1) {
    const digest = createHash('sha256').update(`${seed}:${block}`).digest()
    for (let at = 0; at < digest.length; at += 4) yield digest.readUInt32LE(at) / 2 ** 32
  }
}

/** Bytes without any pattern. */
const noisePool = (): Buffer =>
  createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16)).update(Buffer.alloc(POOL_BYTES))

/** Words of a small language, rare and frequent ones, as source text compresses. */
function textPool(): Buffer {
  const random = numbers('text')
  const next = () => random.next().value
  const letters = 'etaoinshrdlucmfwypvbgkjqxz'
  const word = () =>
    Array.from({ length: 2 + Math.floor(next() * 9) }, () => letters[Math.floor(next() ** 1.6 * 26)]).join('')
  const vocabulary = Array.from({ length: 4000 }, word)
  const separators = [' ', ' ', ' ', '.', ', ', ' = ', '(', ')\n', ';\n    ', '_']
  const pool = Buffer.alloc(POOL_BYTES)
  for (let at = 0; at < POOL_BYTES; ) {
    const text = vocabulary[Math.floor(next() ** 3 * vocabulary.length)] ?? ''
    at += pool.write(`${text}${separators[Math.floor(next() * separators.length)]}`, at)
    if (at > POOL_BYTES - 16) break
  }
  return pool
}

/** A piece of a pool, so that no two files are equal; longer ones go round. */
function slice(pool: Buffer, start: number, length: number): Buffer {
  const from = Math.floor(start * pool.length)
  if (from + length <= pool.length) return pool.subarray(from, from + length)
  const pieces = [pool.subarray(from)]
  for (let left = length - (pool.length - from); left > 0; left -= pool.length)
    pieces.push(pool.subarray(0, Math.min(left, pool.length)))
  return Buffer.concat(pieces, length)
}

/** The entries of each layer, the lowest first. Upper ones also replace, remove and hide what lower ones brought. */
export function imageLayers(shape: ImageShape): TarEntry[][] {
  const random = numbers('image')
  const next = () => random.next().value
  const pools = { noise: noisePool(), text: textPool() }
  const layers = Array.from({ length: shape.layers }, () => [] as TarEntry[])
  const directory = (path: string, uid: number): TarEntry => ({ path, type: 'directory', mode: 0o755, uid, gid: uid })
  for (const [index, layer] of layers.entries()) {
    const perLayer = Math.ceil(shape.files / shape.layers)
    const home = `${index % 2 === 0 ? 'usr/lib' : 'home/user'}/layer${index}`
    const uid = index % 2 === 0 ? 0 : 1000
    const file = (path: string, length: number, noise: boolean): TarEntry => ({
      path,
      type: 'file',
      mode: noise ? 0o755 : 0o644,
      uid,
      gid: uid,
      content: slice(noise ? pools.noise : pools.text, next(), length),
    })
    layer.push(directory(home, uid))
    let at = 0
    for (const size of SIZES) {
      const count = Math.round(perLayer * size.files)
      const mean = (shape.bytes * size.bytes) / shape.layers / Math.max(1, count)
      for (let i = 0; i < count; i += 1, at += 1) {
        const place = `${home}/d${Math.floor(at / FILES_PER_DIRECTORY)}`
        if (at % FILES_PER_DIRECTORY === 0) layer.push(directory(place, uid))
        layer.push(file(`${place}/f${at}`, Math.floor(mean * (0.25 + 1.5 * next())), next() < size.noise))
        if (at % 100 === 7) layer.push({ ...directory(`${place}/s${at}`, uid), type: 'symlink', target: `f${at}` })
        if (at % 150 === 11)
          layer.push({ ...directory(`${place}/h${at}`, uid), type: 'hardlink', mode: 0o644, target: `${place}/f${at}` })
      }
    }
    layer.push({ ...file(`${home}/setuid`, 4096, true), mode: 0o4755 })
    layer.push({ ...file(`${home}/attributed`, 100, false), xattrs: { 'user.bench': `layer ${index}` } })
    if (index === 0) continue
    const below = index % 2 === 1 ? 'usr/lib/layer0' : `home/user/layer${index - 1}`
    layer.push(file(`${below}/d0/f1`, 10_000, false))
    layer.push({ ...file(`${below}/d0/.wh.f2`, 0, false), uid: 0, gid: 0 })
    layer.push({ ...file(`${below}/d1/.wh..wh..opq`, 0, false), uid: 0, gid: 0 })
    layer.push(file(`${below}/d1/fresh${index}`, 2000, false))
  }
  return layers
}
