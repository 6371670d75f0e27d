import { z } from 'zod'

/**
 * What every durable thing is, in the Kubernetes sense. `spec` is what is wanted and moves `generation`;
 * `status` is what was observed. One object is the unit of atomicity: no operation spans two.
 */
export const Metadata = z.object({
  namespace: z.string(),
  /** Unique among resources of the kind in the namespace. For sandboxes and snapshots it is the id. */
  name: z.string(),
  uid: z.string(),
  /** Opaque: compare for equality only. */
  resourceVersion: z.string(),
  /** Grows by one with each change of `spec`. */
  generation: z.int().min(1),
  labels: z.record(z.string(), z.string()),
  annotations: z.record(z.string(), z.string()),
  /** ISO 8601, UTC. */
  createdAt: z.iso.datetime(),
  /** Set once deletion was asked for while finalizers are present. */
  deletionRequestedAt: z.iso.datetime().optional(),
  finalizers: z.array(z.string()),
  ownerReferences: z.array(z.object({ kind: z.string(), name: z.string(), uid: z.string() })),
})
export type Metadata = z.infer<typeof Metadata>

export interface Resource<Kind extends string, Spec, Status> {
  readonly kind: Kind
  readonly metadata: Metadata
  readonly spec: Spec
  readonly status: Status
}

/** The project that is always there: the installation's own key is of it. */
export const DEFAULT_PROJECT = 'default'
/** The namespace of what belongs to no project. No project can have its name. */
export const SYSTEM_NAMESPACE = 'icebox-system'
