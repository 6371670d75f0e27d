import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { type ImageShape, imageLayers } from './content.ts'
import { type TarEntry, tar } from './tar.ts'

export const TAG = 'bench'

interface Blob {
  digest: string
  size: number
}

const sha256 = (bytes: string): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

async function addDocument(blobs: string, document: unknown): Promise<Blob> {
  const text = JSON.stringify(document)
  const digest = sha256(text)
  await writeFile(join(blobs, digest.slice('sha256:'.length)), text)
  return { digest, size: Buffer.byteLength(text) }
}

async function addLayer(blobs: string, index: number, entries: TarEntry[], signal: AbortSignal) {
  const plain = createHash('sha256')
  const hashed = new Transform({
    transform(chunk: Buffer, _, done) {
      plain.update(chunk)
      done(null, chunk)
    },
  })
  const draft = join(blobs, `layer${index}`)
  await pipeline(Readable.from(tar(entries)), hashed, createGzip(), createWriteStream(draft), { signal })
  const stored = createHash('sha256')
  await pipeline(createReadStream(draft), stored, { signal })
  const hex = stored.digest('hex')
  await rename(draft, join(blobs, hex))
  const { size } = await stat(join(blobs, hex))
  return { blob: { digest: `sha256:${hex}`, size }, diffId: `sha256:${plain.digest('hex')}` }
}

/** Writes an OCI layout with one image, tagged TAG, into an existing empty directory. Gives the bytes of its layers as stored. */
export async function writeLayout(directory: string, shape: ImageShape, signal: AbortSignal): Promise<number> {
  const blobs = join(directory, 'blobs', 'sha256')
  await mkdir(blobs, { recursive: true })
  const layers = await Promise.all(imageLayers(shape).map((entries, index) => addLayer(blobs, index, entries, signal)))
  const config = await addDocument(blobs, {
    architecture: 'amd64',
    os: 'linux',
    config: { Env: ['PATH=/usr/bin:/bin'], WorkingDir: '/', Cmd: ['/bin/sh'] },
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    history: layers.map((_, index) => ({ created_by: `layer ${index}` })),
  })
  const manifest = await addDocument(blobs, {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
    layers: layers.map(({ blob }) => ({ mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', ...blob })),
  })
  await writeFile(join(directory, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  await writeFile(
    join(directory, 'index.json'),
    JSON.stringify({
      schemaVersion: 2,
      manifests: [
        {
          mediaType: 'application/vnd.oci.image.manifest.v1+json',
          ...manifest,
          annotations: { 'org.opencontainers.image.ref.name': TAG },
        },
      ],
    }),
  )
  return layers.reduce((total, { blob }) => total + blob.size, 0)
}
