import { IceboxError, KINDS, type Kind, Metadata, type ResourceOf, type SpecOf, type StatusOf } from '@icebox/model'
import { z } from 'zod'

/** Metadata as stored: the version is a column of its own. */
const StoredMetadata = Metadata.omit({ resourceVersion: true })

export const Row = z.object({
  version: z.int(),
  metadata: z.string(),
  spec: z.string(),
  status: z.string(),
})
export type Row = z.infer<typeof Row>

export interface Content<K extends Kind> {
  metadata: z.infer<typeof StoredMetadata>
  spec: SpecOf<K>
  status: StatusOf<K>
}

const read = <T>(schema: z.ZodType<T>, json: string): T => schema.parse(JSON.parse(json))

/** The resource in a row. Throws Internal when it does not fit its schema: better no answer than a wrong one. */
export function decode<K extends Kind>(kind: K, row: Row): ResourceOf[K] {
  try {
    return assemble(kind, row.version, {
      metadata: read(StoredMetadata, row.metadata),
      spec: read(KINDS[kind].spec as z.ZodType<SpecOf<K>>, row.spec),
      status: read(KINDS[kind].status as z.ZodType<StatusOf<K>>, row.status),
    })
  } catch (thrown) {
    throw new IceboxError('Internal', `a ${kind} in the database does not fit its schema: ${row.metadata}`, {
      cause: thrown,
    })
  }
}

export const assemble = <K extends Kind>(kind: K, version: number, content: Content<K>): ResourceOf[K] =>
  // The compiler cannot see that the parts of kind K make a resource of kind K.
  ({
    kind,
    metadata: { ...content.metadata, resourceVersion: String(version) },
    spec: content.spec,
    status: content.status,
  }) as unknown as ResourceOf[K]

export function contentOf<K extends Kind>(resource: ResourceOf[K]): Content<K> {
  const { resourceVersion: _, ...metadata } = resource.metadata
  return { metadata, spec: resource.spec, status: resource.status }
}
