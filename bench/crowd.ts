import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openIcebox } from '@icebox/cli'
import {
  DEFAULT_PROJECT,
  DEFAULT_SIZE,
  newExecutionId,
  newSandboxId,
  newSnapshotId,
  type Sandbox as SandboxRecord,
  type Snapshot as SnapshotRecord,
} from '@icebox/model'
import { BASE_IMAGE, ensureRuntime, stepReport } from '@icebox/node'
import { Icebox } from '@icebox/sdk'
import { openDataDirectory, runDirectoryOf } from '@icebox/snapshot'
import { openSqliteStore, type ResourceStore } from '@icebox/store'

const TEMPLATE = 'bench'
const CLOSE_MS = 120_000
/** Records that are written at once, and become durable together. */
const BATCH = 500
/** Snapshots that nothing stands on, to be dropped. */
const SPARE = 40

const IMAGE = '0'.repeat(64)

/** A sandbox as it is long after its pause. */
function pausedSandbox(snapshot: string): Pick<SandboxRecord, 'spec' | 'status'> {
  return {
    spec: {
      source: { from: 'template', template: TEMPLATE },
      size: DEFAULT_SIZE,
      env: { PATH: '/usr/local/bin:/usr/bin:/bin', LANG: 'C.UTF-8' },
      entrypoint: [],
      metadata: { user: 'someone', session: snapshot },
      onTimeout: 'kill',
      pauseKind: 'memory',
      autoResume: false,
      secure: true,
      publicTraffic: false,
    },
    status: {
      state: 'paused',
      lastTransitionAt: new Date().toISOString(),
      execution: newExecutionId(),
      imageName: IMAGE,
      lastSnapshot: snapshot,
      pausedIn: snapshot,
      usage: { runningSeconds: 12 },
      restoreMs: 20,
    },
  }
}

const snapshotOf = (
  sandbox: string,
  purpose: SnapshotRecord['spec']['purpose'],
): Pick<SnapshotRecord, 'spec' | 'status'> => ({
  spec: {
    kind: 'memory',
    sandbox,
    execution: newExecutionId(),
    imageName: IMAGE,
    size: DEFAULT_SIZE,
    env: { PATH: '/usr/local/bin:/usr/bin:/bin', LANG: 'C.UTF-8' },
    purpose,
  },
  status: { state: 'ready', lastTransitionAt: new Date().toISOString(), sizeBytes: 1_000_000 },
})

/** What is on the disk of a snapshot, as far as anything looks that does not restore it. */
async function writeBytes(directory: string): Promise<void> {
  await mkdir(join(directory, 'files'), { recursive: true })
  await writeFile(join(directory, 'files', 'pages.img'), 'x')
}

async function writeOne(store: ResourceStore, snapshots: string, signal: AbortSignal): Promise<void> {
  const [sandbox, snapshot] = [newSandboxId(), newSnapshotId()]
  const key = (name: string) => ({ namespace: DEFAULT_PROJECT, name })
  await writeBytes(join(snapshots, snapshot))
  await store.create('Snapshot', key(snapshot), snapshotOf(sandbox, 'pause'), signal)
  await store.create('Sandbox', key(sandbox), pausedSandbox(snapshot), signal)
}

/** Makes a data directory in which so many paused sandboxes are recorded, each with the snapshot of its pause. */
export async function recordCrowd(directory: string, count: number, signal: AbortSignal): Promise<void> {
  const data = await openDataDirectory(directory)
  try {
    const store = await openSqliteStore(data.database)
    try {
      for (let made = 0; made < count; made += BATCH) {
        signal.throwIfAborted()
        const batch = Math.min(BATCH, count - made)
        await Promise.all(Array.from({ length: batch }, () => writeOne(store, data.snapshots, signal)))
      }
      for (let made = 0; made < SPARE; made++) {
        const name = newSnapshotId()
        await writeBytes(join(data.snapshots, name))
        await store.create('Snapshot', { namespace: DEFAULT_PROJECT, name }, snapshotOf('gone', 'user'), signal)
      }
    } finally {
      await store.close()
    }
  } finally {
    await data.close()
  }
}

/** A server in this process among whose records are those of so many paused sandboxes. */
export interface Crowd extends AsyncDisposable {
  icebox: Icebox
  apiKey: string
  url: string
  template: string
  count: number
}

export async function openCrowd(directory: string, count: number, signal: AbortSignal): Promise<Crowd> {
  const report = stepReport(process.stderr)
  await ensureRuntime(report, signal)
  const path = await realpath(await mkdtemp(join(directory, 'crowd-')))
  await recordCrowd(path, count, signal)
  const server = await openIcebox(
    { dataDirectory: path, reach: { listen: { host: '127.0.0.1', port: 0 } }, report, slots: 0, onShutdown: () => {} },
    signal,
  )
  const close = async () => {
    await server.close('keep', AbortSignal.timeout(CLOSE_MS))
    await rm(path, { recursive: true })
    await rm(runDirectoryOf(path), { recursive: true, force: true })
  }
  try {
    const apiKey = (await readFile(server.keyFile, 'utf8')).trim()
    const icebox = new Icebox({ url: server.url, apiKey })
    await icebox.templates.build({ name: TEMPLATE, image: BASE_IMAGE, size: { memoryMiB: 128 }, signal })
    return { icebox, apiKey, url: server.url, template: TEMPLATE, count, [Symbol.asyncDispose]: close }
  } catch (error) {
    await close()
    throw error
  }
}
