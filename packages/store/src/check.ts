import { IceboxError, KINDS, type Kind, type SpecOf, type StatusOf } from '@icebox/model'
import { z } from 'zod'
import type { MetadataChange } from './store.ts'

/** A DNS label, as Kubernetes wants of a namespace. */
const Namespace = z
  .string()
  .max(63)
  .regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/, 'must be a DNS label')
/** A DNS subdomain, as Kubernetes wants of a name. */
const Name = z
  .string()
  .max(253)
  .regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/, 'must be a DNS subdomain')
const QualifiedName = z
  .string()
  .max(317)
  .regex(
    /^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/,
    'must be a name of at most 63 characters after an optional DNS prefix and a slash',
  )
const LabelValue = z
  .string()
  .max(63)
  .regex(/^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$/, 'must be empty or letters, digits, dash, underscore and dot')

const Labels = z.record(QualifiedName, LabelValue)
const Annotations = z.record(QualifiedName, z.string())
const Finalizers = z
  .array(QualifiedName.regex(/\//, 'must have a DNS prefix and a slash'))
  .refine((finalizers) => new Set(finalizers).size === finalizers.length, 'must not repeat')

/** Checks a value that comes from a caller. Throws InvalidArgument that names each field at fault. */
function check<T>(what: string, schema: z.ZodType<T>, value: unknown): T {
  // As it will be read back: without fields that are undefined, and sharing nothing with the caller.
  const result = schema.safeParse(value === undefined ? value : JSON.parse(JSON.stringify(value)))
  if (result.success) return result.data
  const faults = result.error.issues.map((issue) => `${[what, ...issue.path.map(String)].join('.')}: ${issue.message}`)
  throw new IceboxError('InvalidArgument', faults.join('; '))
}

/** Kubernetes' rules, so that what one store takes the other takes too. */
export function checkKey(key: { namespace: string; name: string }): void {
  check('namespace', Namespace, key.namespace)
  check('name', Name, key.name)
}

export const checkMetadata = (change: MetadataChange): MetadataChange => ({
  ...(change.labels && { labels: check('labels', Labels, change.labels) }),
  ...(change.annotations && { annotations: check('annotations', Annotations, change.annotations) }),
  ...(change.finalizers && { finalizers: check('finalizers', Finalizers, change.finalizers) }),
})

export const checkSpec = <K extends Kind>(kind: K, spec: unknown): SpecOf<K> =>
  check(`${kind}.spec`, KINDS[kind].spec as z.ZodType<SpecOf<K>>, spec)

export const checkStatus = <K extends Kind>(kind: K, status: unknown): StatusOf<K> =>
  check(`${kind}.status`, KINDS[kind].status as z.ZodType<StatusOf<K>>, status)
