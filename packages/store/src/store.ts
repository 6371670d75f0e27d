import type { Kind, ResourceOf, SpecOf, StatusOf } from '@icebox/model'

/** Bytes of a resource as JSON. Everything that is kept is read again some day, by one process that serves everybody. */
export const MAX_RESOURCE_BYTES = 256 * 1024

/** What a writer may set besides spec and status. */
export interface MetadataChange {
  labels?: Record<string, string>
  annotations?: Record<string, string>
  finalizers?: string[]
}

export interface ListOptions {
  /** All labels must be equal. */
  labels?: Record<string, string>
  /** At most this many; the rest follows with `continue`. Default: all. */
  limit?: number
  /** From the previous page. Opaque. */
  continue?: string
}

export interface List<K extends Kind> {
  items: ResourceOf[K][]
  /** Watch from here to see every change after this list. */
  resourceVersion: string
  /** Absent on the last page. */
  continue?: string
}

export type WatchEvent<K extends Kind> =
  | { type: 'put'; resource: ResourceOf[K] }
  | { type: 'delete'; resource: ResourceOf[K] }

/**
 * Whether version `a` of a resource is newer than version `b`. resourceVersions of one kind are decimal numbers that grow with each
 * write; Kubernetes promises the same since 1.35 (KEP-5504).
 */
export const isNewer = (a: string, b: string): boolean => (a.length === b.length ? a > b : a.length > b.length)

/**
 * Where resources live. One object is the unit of atomicity. Every write is compare-and-set on resourceVersion.
 *
 * Errors: `NotFound`; `AlreadyExists` (create); `StaleWrite` (resourceVersion or uid differs);
 * `WatchExpired` (the log no longer reaches back to `from`, or the watcher fell behind: list again);
 * `InvalidArgument` (spec or status does not fit the kind's schema); `TooLarge` (more than `MAX_RESOURCE_BYTES`).
 */
export interface ResourceStore {
  create<K extends Kind>(
    kind: K,
    key: { namespace: string; name: string },
    content: { spec: SpecOf<K>; status: StatusOf<K>; metadata?: MetadataChange },
    signal: AbortSignal,
  ): Promise<ResourceOf[K]>
  get<K extends Kind>(kind: K, key: { namespace: string; name: string }, signal: AbortSignal): Promise<ResourceOf[K]>
  /** Without a namespace: of all. */
  list<K extends Kind>(
    kind: K,
    namespace: string | undefined,
    options: ListOptions,
    signal: AbortSignal,
  ): Promise<List<K>>
  /** Replaces spec and the named metadata. Never changes status. generation grows only when spec differs. */
  updateSpec<K extends Kind>(
    kind: K,
    resource: ResourceOf[K],
    change: { spec?: SpecOf<K>; metadata?: MetadataChange },
    signal: AbortSignal,
  ): Promise<ResourceOf[K]>
  /** Replaces status. Never changes spec, metadata or generation. */
  updateStatus<K extends Kind>(
    kind: K,
    resource: ResourceOf[K],
    status: StatusOf<K>,
    signal: AbortSignal,
  ): Promise<ResourceOf[K]>
  /**
   * Deletes the resource with this uid. With finalizers present it is only marked (`deletionRequestedAt`) and goes
   * when the last finalizer is removed by updateSpec.
   */
  delete<K extends Kind>(kind: K, resource: ResourceOf[K], signal: AbortSignal): Promise<void>
  /**
   * Every change after `from` (a resourceVersion of a list), in order for each resource. Changes of one resource may be
   * coalesced into its latest. Without a namespace: of all. Ends when the signal aborts; throws WatchExpired when changes may have
   * been missed.
   */
  watch<K extends Kind>(
    kind: K,
    namespace: string | undefined,
    from: string,
    signal: AbortSignal,
  ): AsyncIterable<WatchEvent<K>>
  close(): Promise<void>
}
