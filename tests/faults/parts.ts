import { join } from 'node:path'
import { type Control, openControl, type Project } from '@icebox/control'
import type { Node } from '@icebox/model'
import { cacheDirectory, ensureGuest, ensureRunsc, gvisorDriver, openImageStore, openLocalNode } from '@icebox/node'
import { type DataDirectory, openDataDirectory, openKeyring, openSnapshots } from '@icebox/snapshot'
import { openSqliteStore } from '@icebox/store'
import type { CrashPoint } from './crash-points.ts'

const START_MS = 120_000

/** The installation's own key. */
export const KEY = 'e2b_0000000000000000000000000000000000000000'

export interface Parts {
  data: DataDirectory
  node: Node
  control: Control
  /** The services of the project that is always there. */
  project: Project
  /** Lets go of everything; sandboxes run on. */
  close(): Promise<void>
}

/**
 * Icebox without its HTTP server, of the same parts as `icebox up`, in this process. With a crash point, every write of the
 * store, every step of a machine and every step of a snapshot is a place to die at.
 */
export async function openParts(directory: string, crash?: CrashPoint): Promise<Parts> {
  const signal = AbortSignal.timeout(START_MS)
  const [runsc, guest] = await Promise.all([ensureRunsc(signal), ensureGuest(signal)])
  const data = await openDataDirectory(directory)
  const images = openImageStore({ directory: data.images, cacheDirectory: cacheDirectory() })
  const plainStore = await openSqliteStore(data.database)
  const plainSnapshots = openSnapshots({
    directory: data.snapshots,
    tmp: data.tmp,
    keyring: await openKeyring(data.path),
  })
  const plainDriver = gvisorDriver({
    runsc,
    guest,
    dataDirectory: data.path,
    runDirectory: data.run,
    imagePath: (digest) => images.path(digest, 'erofs'),
  })
  // `unknown` in, the same type out: a watched object has the type of the object.
  const watched = <T extends object>(
    target: T,
    name: string,
    methods: (keyof T & string)[],
    wrap?: (method: string, result: unknown) => unknown,
  ): T => (crash === undefined ? target : crash.watch(target, name, methods, wrap))
  const machine = (method: string, result: unknown): unknown =>
    method === 'restore' || method === 'boot'
      ? watched(result as Awaited<ReturnType<typeof plainDriver.boot>>, 'machine', ['freeze', 'save', 'thaw', 'kill'])
      : result
  const draft = (method: string, result: unknown): unknown =>
    method === 'begin'
      ? watched(result as Awaited<ReturnType<typeof plainSnapshots.begin>>, 'draft', ['commit'])
      : result

  const node = await openLocalNode(
    {
      driver: watched(plainDriver, 'driver', ['restore', 'boot'], machine),
      images,
      snapshots: watched(plainSnapshots, 'snapshots', ['begin', 'remove'], draft),
      bootFile: join(data.path, 'boot'),
      tmp: data.tmp,
      agentVersion: 'test',
      slots: 0,
      onTrouble: (what, error) => process.stderr.write(`${what}: ${error.message}\n`),
    },
    signal,
  )
  const control = await openControl({
    store: watched(plainStore, 'store', ['create', 'updateSpec', 'updateStatus', 'delete']),
    node,
    log: () => undefined,
    installationKey: KEY,
    tokenSecret: await data.readOrCreateTokenSecret(),
    directory: data,
  })
  return {
    data,
    node,
    control,
    project: control.installation,
    async close() {
      await control.close('keep', AbortSignal.timeout(START_MS))
      await data.close()
    },
  }
}
