import { setTimeout as sleep } from 'node:timers/promises'
import { FILES, type Fleet } from './fleet.ts'
import type { Random } from './random.ts'

const AWAY_MS = 50
const SNAPSHOTS = 5

/** How often what is done. Making and deleting follow from how many sandboxes there are. */
const WEIGHTS = {
  write: 14,
  upload: 8,
  read: 20,
  count: 8,
  pause: 10,
  resume: 12,
  fork: 8,
  snapshot: 5,
  replace: 5,
  renew: 4,
  expire: 9,
  again: 7,
  list: 6,
}

/** One client: does one thing after the other until the signal, and waits while there is no server. */
export async function runClient(
  fleet: Fleet,
  client: number,
  random: Random,
  target: number,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await doOne(fleet, client, random, target)
    while (!(await isThere(fleet)) && !signal.aborted) await sleep(AWAY_MS)
  }
}

const isThere = (fleet: Fleet): Promise<boolean> =>
  fleet.icebox.health({ requestTimeoutMs: 1000 }).then(
    () => true,
    () => false,
  )

async function doOne(fleet: Fleet, client: number, random: Random, target: number): Promise<void> {
  const running = random.choose(fleet.sandboxes('Running'))
  const paused = random.choose(fleet.sandboxes('Paused'))
  const any = random.choose([...fleet.believed.keys()])
  const file = random.choose(FILES) ?? FILES[0]
  const snapshot = random.choose([...fleet.snapshots])
  const room = target - fleet.believed.size
  const wanted = { from: random.fraction() < 0.4 ? snapshot : undefined, wakes: random.fraction() < 0.5 }
  if (room > 0 && random.fraction() < 0.3) return fleet.create(client, wanted)
  // More came about than were acknowledged.
  if (room < 0 && any !== undefined && random.fraction() < 0.3) return fleet.delete(client, any)
  const what = random.weighted(WEIGHTS)
  if (what === 'list' || any === undefined) return fleet.list(client)
  if (what === 'renew') return fleet.renew(client, any)
  if (what === 'replace') {
    await fleet.delete(client, any)
    return fleet.create(client, wanted)
  }
  if (what === 'again') return fleet.again(client, random.choose(fleet.repeatable) ?? '')
  if (what === 'resume') return paused === undefined ? undefined : fleet.resume(client, paused)
  // What is paused is asked, too: it may be one that wakes.
  const used = random.fraction() < 0.7 ? running : (paused ?? running)
  if (running === undefined || used === undefined) return fleet.list(client)
  switch (what) {
    case 'write':
      return fleet.write(client, used, file)
    case 'upload':
      return fleet.upload(client, used, file)
    case 'read':
      return fleet.read(client, used, file)
    case 'count':
      await fleet.count(client, used)
      return
    case 'expire':
      return fleet.expire(client, running, random.between(1, 3))
    case 'pause':
      return fleet.pause(client, running)
    case 'fork':
      if (room < 1) await fleet.delete(client, any)
      return fleet.fork(client, running, random.between(1, 2))
    case 'snapshot':
      await fleet.snapshot(client, running)
      if (fleet.snapshots.size > SNAPSHOTS && snapshot !== undefined) await fleet.drop(client, snapshot)
      return
    default:
      what satisfies never
  }
}
