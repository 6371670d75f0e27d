import { readdir, readFile, realpath } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { WireSandbox } from '@icebox/model'
import type { Icebox } from '@icebox/sdk'
import { runDirectoryOf } from '@icebox/snapshot'
import { checkEvents } from '../history/accounts.ts'
import type { OperationOf, Seen } from '../history/record.ts'
import { checkRemains } from '../history/remains.ts'

type Census = OperationOf<'census'>

const LOOK_MS = 250
const CONTAINER = /^[0-9a-z]{20}$/

export const seenOf = ({ id, metadata, status, pausedSnapshotId }: WireSandbox): Seen => ({
  id,
  ...(metadata.key === undefined ? {} : { key: metadata.key }),
  state: status.state,
  ...(pausedSnapshotId === undefined ? {} : { pausedIn: pausedSnapshotId }),
})

const names = (path: string) => readdir(path).catch((): string[] => [])
const lines = async (path: string) => (await readFile(path, 'utf8').catch(() => '')).split('\n').filter(Boolean)

/** Container by run directory: of machines by execution, of slots by their own name. */
async function containersOf(run: string): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  for (const execution of await names(join(run, 'machines'))) {
    const path = join(run, 'machines', execution)
    const record: unknown = JSON.parse(await readFile(join(path, 'machine.json'), 'utf8').catch(() => '{}'))
    const container =
      typeof record === 'object' && record !== null && 'container' in record ? record.container : undefined
    found.set(path, String(container ?? `nothing known of ${execution}`))
  }
  for (const slot of await names(join(run, 'slots'))) found.set(join(run, 'slots', slot), slot)
  return found
}

async function nodeOf(dataDirectory: string): Promise<Census['node']> {
  const data = await realpath(dataDirectory)
  const run = runDirectoryOf(data)
  const directories = await containersOf(run)
  const mounts = (await lines('/proc/self/mountinfo')).map((line) => line.split(' '))
  const points = mounts.map(([, , , , point = '']) => point)
  const groups = new Set<string>()
  for (const mount of mounts)
    if (mount.some((word) => /^cgroup2?$/.test(word)))
      for (const entry of await readdir(join(mount[4] ?? '', 'icebox', basename(run)), { withFileTypes: true }).catch(
        () => [],
      ))
        if (entry.isDirectory()) groups.add(entry.name)
  const processes = new Set<string>()
  for (const pid of (await names('/proc')).filter((name) => /^\d+$/.test(name))) {
    const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0')
    // A command of runsc is over in a moment; the sentry and its gofer are there as long as the container.
    if (words.some((word) => word.includes(run)) && (words.includes('boot') || words.includes('gofer')))
      processes.add(words.find((word) => CONTAINER.test(word)) ?? words.join(' '))
  }
  const withNetwork = [...directories].filter(([path]) => points.includes(join(path, 'network')))
  return {
    slots: await names(join(run, 'slots')),
    containers: {
      'run directories': [...directories.values()],
      'network namespaces': withNetwork.map(([, container]) => container),
      'directories of runsc': await names(join(run, 'runsc')),
      bundles: await names(join(data, 'bundles')),
      'control groups': [...groups],
      processes: [...processes],
    },
    snapshots: await names(join(data, 'snapshots')),
    temporary: [
      ...(await names(join(data, 'tmp'))).map((name) => join('tmp', name)),
      ...(await names(join(data, 'images', 'tmp'))).map((name) => join('images', 'tmp', name)),
      ...points.filter((point) => point.startsWith(`${data}/`)),
    ],
  }
}

async function look(icebox: Icebox, dataDirectory: string, now: () => number): Promise<Census> {
  const begin = now()
  const [sandboxes, events, usage, visible, all, node] = await Promise.all([
    icebox.sandboxes.list(),
    icebox.events.list(),
    icebox.usage(),
    icebox.snapshots.list({ state: ['Ready'] }),
    icebox.snapshots.list({ state: ['Ready'], hidden: true }),
    nodeOf(dataDirectory),
  ])
  const shown = new Set(visible.map(({ id }) => id))
  return {
    ...{ op: 'census', client: 0, begin, end: now() },
    sandboxes: sandboxes.map(({ resource }) => seenOf(resource)),
    events: Object.fromEntries(
      events.filter(({ kind }) => kind === 'Sandbox').map(({ resource, to }) => [resource, to]),
    ),
    usage: usage.flatMap(({ sandboxId, runningSeconds, deletedAt }) =>
      deletedAt === undefined ? [] : [{ sandbox: sandboxId, runningSeconds }],
    ),
    snapshots: all.map(({ id, template }) => ({
      ...{ id, hidden: !shown.has(id) },
      ...(template === undefined ? {} : { template }),
    })),
    node,
  }
}

/**
 * What is recorded and what is on the machine, once they agree: what was answered may still be on its way out. After `milliseconds`
 * as it is then, whatever that is.
 */
export async function takeCensus(
  icebox: Icebox,
  dataDirectory: string,
  now: () => number,
  milliseconds: number,
): Promise<Census> {
  const until = performance.now() + milliseconds
  for (;;) {
    const census = await look(icebox, dataDirectory, now)
    const isSettled = census.sandboxes.every(({ state }) => state === 'Running' || state === 'Paused')
    const isQuiet = isSettled && checkRemains([census]).length === 0 && checkEvents(census).length === 0
    if (isQuiet || performance.now() > until) return census
    await sleep(LOOK_MS)
  }
}
