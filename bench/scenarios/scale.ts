import { type Crowd, openCrowd } from '../crowd.ts'
import { atMost, interleave, result, timed } from '../measure.ts'
import type { Scenario } from '../scenario.ts'

/** Recorded where the floor is taken. */
const FEW = 10
const PAGE = 10

const OPERATIONS = [
  'create',
  'named create',
  'get',
  'first page of a list',
  'last page of a list',
  'pause',
  'resume',
  'delete',
  'drop one snapshot',
] as const
type Operation = (typeof OPERATIONS)[number]

async function page({ url, apiKey }: Crowd, number: number): Promise<unknown> {
  const response = await fetch(`${url}/v1/sandboxes?pageSize=${PAGE}&page=${number}`, {
    headers: { 'x-api-key': apiKey },
  })
  return response.json()
}

/** Every operation once, on a sandbox of its own. */
async function lap(crowd: Crowd, round: number): Promise<Record<Operation, number>> {
  const { icebox, template, count } = crowd
  const times = Object.fromEntries(OPERATIONS.map((name) => [name, 0])) as Record<Operation, number>
  const time = async <R>(name: Operation, work: () => Promise<R>): Promise<R> => {
    let made: R | undefined
    times[name] = await timed(async () => {
      made = await work()
    })
    return made as R
  }
  const sandbox = await time('create', () => icebox.sandboxes.create({ template }))
  const named = await time('named create', () => icebox.sandboxes.create({ template, name: `named-${round}` }))
  await named.delete()
  await time('get', () => sandbox.info())
  await time('first page of a list', () => page(crowd, 1))
  await time('last page of a list', () => page(crowd, Math.floor(count / PAGE)))
  await time('pause', () => sandbox.pause())
  await time('resume', () => sandbox.resume())
  await time('delete', () => sandbox.delete())
  const [spare] = await icebox.snapshots.list()
  if (spare === undefined) throw new Error('there is no snapshot left to drop')
  await time('drop one snapshot', () => icebox.snapshots.delete(spare.id))
  return times
}

export const scale: Scenario = {
  name: 'scale',
  summary: 'operations while thousands of paused sandboxes and their snapshots are recorded; floor: while ten are',
  async run(lab, effort, signal) {
    await using few = await openCrowd(lab.directory, FEW, signal)
    await using many = await openCrowd(lab.directory, effort.crowdRecords, signal)
    const laps = { ours: [] as Record<Operation, number>[], floor: [] as Record<Operation, number>[] }
    let round = 0
    const run = async (crowd: Crowd, into: Record<Operation, number>[]) => {
      into.push(await lap(crowd, round++))
      return []
    }
    await interleave(
      effort.rounds.short,
      { floor: () => run(few, laps.floor), ours: () => run(many, laps.ours) },
      signal,
    )
    // The first round warms up.
    const of = (name: Operation, side: 'ours' | 'floor') => laps[side].slice(1).map((times) => times[name])
    return OPERATIONS.map((name) =>
      result(`scale: ${name}`, 'ms', { ours: of(name, 'ours'), floor: of(name, 'floor') }, atMost(1.25)),
    )
  },
}
