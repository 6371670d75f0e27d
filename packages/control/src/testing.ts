import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { newSandboxId, type Sandbox, type Snapshot } from '@icebox/model'
import { openSqliteStore, type ResourceStore } from '@icebox/store'
import { Cache } from './cache/cache.ts'
import { Records } from './records.ts'

/** For tests: a store, in a directory of its own, that ends with the test, and what is known of it. */
export async function openTestStore(t: TestContext): Promise<{
  store: ResourceStore
  directory: string
  cache: Cache
  recordsOf: (project: string) => Records
}> {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-control-'))
  const store = await openSqliteStore(join(directory, 'icebox.db'))
  const closing = new AbortController()
  const cache = await Cache.open(store, () => undefined, closing.signal)
  t.after(async () => {
    closing.abort()
    await cache.closed()
    await store.close()
    await rm(directory, { recursive: true, force: true })
  })
  return { store, directory, cache, recordsOf: (project) => new Records(store, cache, project) }
}

/** Resources as they are once they are written, for tests. */

export const SPEC: Sandbox['spec'] = {
  source: { from: 'template', template: 'base' },
  size: { cpu: 1, memoryMiB: 128, diskMiB: 1024 },
  env: {},
  entrypoint: [],
  metadata: {},
  onTimeout: 'kill',
  pauseKind: 'memory',
  autoResume: false,
  secure: true,
  publicTraffic: false,
}

export const metadataOf = (name: string, more: Partial<Snapshot['metadata']> = {}): Snapshot['metadata'] => ({
  namespace: 'mine',
  name,
  uid: name,
  resourceVersion: '1',
  generation: 1,
  labels: {},
  annotations: {},
  createdAt: new Date(0).toISOString(),
  finalizers: [],
  ownerReferences: [],
  ...more,
})

export const statusOf = (
  state: Sandbox['status']['state'],
  more: Partial<Sandbox['status']> = {},
): Sandbox['status'] => ({
  state,
  lastTransitionAt: new Date().toISOString(),
  usage: { runningSeconds: 0 },
  ...more,
})

export const sandboxOf = (
  status: Sandbox['status'],
  {
    metadata = metadataOf(newSandboxId()),
    spec = {},
  }: { metadata?: Sandbox['metadata']; spec?: Partial<Sandbox['spec']> } = {},
): Sandbox => ({ kind: 'Sandbox', metadata, spec: { ...SPEC, ...spec }, status })
