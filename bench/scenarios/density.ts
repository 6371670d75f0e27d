import { setTimeout as sleep } from 'node:timers/promises'
import type { Cgroup } from '../../packages/node/src/cgroup/cgroup.ts'
import { execTrue, TRUE } from '../answered.ts'
import { FloorContainer, proportionalMiB } from '../floor/container.ts'
import { withSandbox } from '../lab.ts'
import { type Bound, result } from '../measure.ts'
import type { Scenario } from '../scenario.ts'

const LIMIT_MIB = 24
const LIGHT: Bound = {
  text: `≤ ${LIMIT_MIB} MiB and ≤ 1.1 × floor`,
  holds: (ours, floor) => ours.p50 <= LIMIT_MIB && ours.p50 <= 1.1 * floor.p50,
}
/** Milliseconds after which memory that was freed by what was done last has been given back. */
const SETTLE_MS = 2000

async function settled(groups: Cgroup[], signal: AbortSignal): Promise<number[]> {
  await sleep(SETTLE_MS, undefined, { signal })
  return await Promise.all(groups.map(proportionalMiB))
}

export const density: Scenario = {
  name: 'density',
  summary: 'memory of an idle child on the host, by its proportional set size, many at once',
  async run(lab, effort, signal) {
    const stage = await lab.stage()
    const { icebox, template } = stage
    const { children } = effort
    const ours = await withSandbox(icebox.sandboxes.create({ template }), async (source) => {
      const [own] = stage.executions()
      const made = await source.fork(children)
      try {
        for (const child of made) await execTrue(child)
        const idle = stage.executions().filter((execution) => execution !== own)
        return await settled(idle.map(stage.cgroupOf), signal)
      } finally {
        await Promise.all(made.map((child) => child.delete()))
      }
    })
    const floors: FloorContainer[] = []
    try {
      // One more than is counted, as the source was there too.
      for (let i = 0; i <= children; i += 1) {
        const container = new FloorContainer(stage.floor)
        floors.push(container)
        await container.create(stage.templateSnapshot.plan, undefined, signal)
        await container.restore(stage.templateSnapshot.directory, signal)
        await container.greet(signal)
        await container.exec(TRUE, signal)
      }
      const floor = await settled(
        floors.slice(1).map(({ cgroup }) => cgroup),
        signal,
      )
      return [
        result(`density at ${children}`, 'MiB', { ours, floor }, LIGHT, [
          'floor: the same number restored by hand from the template',
        ]),
      ]
    } finally {
      await Promise.all(floors.map((container) => container.destroy()))
    }
  },
}
