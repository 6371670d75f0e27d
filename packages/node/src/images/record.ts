import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { IceboxError, ImageConfig, type NodeImage } from '@icebox/model'
import { z } from 'zod'
import { Digest } from './digest.ts'

/** What the store knows of an image: `image.json` beside its file system. */
export const ImageRecord = z.object({
  version: z.literal(1),
  digest: Digest,
  /** Every reference it was pulled by, and when last. */
  references: z
    .array(z.object({ reference: z.string(), pulledAt: z.iso.datetime(), origin: z.string().optional() }))
    .min(1),
  config: ImageConfig,
  sizeBytes: z.int().min(0),
})
export type ImageRecord = z.infer<typeof ImageRecord>

export const RECORD_NAME = 'image.json'
export const EROFS_NAME = 'image.erofs'
const HEX = /^([0-9a-f]{64}|[0-9a-f]{128})$/

/** Undefined when there is no such image. Throws `Internal` for a record that cannot be read. */
export async function readRecord(directory: string, hex: string): Promise<ImageRecord | undefined> {
  const path = join(directory, hex, RECORD_NAME)
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (thrown) {
    if (thrown instanceof Error && 'code' in thrown && thrown.code === 'ENOENT') return undefined
    throw thrown
  }
  try {
    return ImageRecord.parse(JSON.parse(text))
  } catch (cause) {
    throw new IceboxError('Internal', `${path} is damaged`, { cause, remedy: 'Delete the image and pull it again.' })
  }
}

/** All that can be read, newest pull first. */
export async function readRecords(directory: string, signal: AbortSignal): Promise<ImageRecord[]> {
  const names = await readdir(directory).catch(() => [])
  const records: ImageRecord[] = []
  for (const name of names.filter((name) => HEX.test(name))) {
    signal.throwIfAborted()
    const record = await readRecord(directory, name)
    if (record !== undefined) records.push(record)
  }
  return records.sort((a, b) => (latest(a).pulledAt < latest(b).pulledAt ? 1 : -1))
}

export type Pull = ImageRecord['references'][number]

function latest(record: ImageRecord): Pull {
  return record.references.reduce((a, b) => (a.pulledAt >= b.pulledAt ? a : b))
}

export const toNodeImage = (record: ImageRecord): NodeImage => ({
  digest: record.digest,
  reference: latest(record).reference,
  config: record.config,
  sizeBytes: record.sizeBytes,
})

/** When the image was pulled by the reference; undefined: never. */
export const pulledAt = (record: ImageRecord, reference: string): string | undefined =>
  record.references.find((pull) => pull.reference === reference)?.pulledAt

/** Whether it was made of a file of this machine that has not changed since. */
export const isMadeOf = (record: ImageRecord, origin: string): boolean =>
  record.references.some((pull) => pull.origin === origin)

export const pullOf = (reference: string, origin?: string): Pull => ({
  reference,
  pulledAt: new Date().toISOString(),
  ...(origin === undefined ? {} : { origin }),
})

export const withPull = (record: ImageRecord, pull: Pull): ImageRecord => ({
  ...record,
  references: [...record.references.filter(({ reference }) => reference !== pull.reference), pull],
})
