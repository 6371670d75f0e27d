import { newSandboxId, type Sandbox, type Snapshot } from '@icebox/model'

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
