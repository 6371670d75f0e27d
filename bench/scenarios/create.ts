import { createAnswered, restoreAnswered } from '../answered.ts'
import { atMost, interleave, result } from '../measure.ts'
import type { Scenario } from '../scenario.ts'

const WITHOUT_SLOTS = atMost(1.3)
const WITH_SLOTS = atMost(0.8)

export const create: Scenario = {
  name: 'create',
  summary: 'HTTP create from a template until the first exec has ended: one at a time, and a burst',
  async run(lab, effort, signal) {
    const stage = await lab.stage()
    const { icebox, template, templateSnapshot } = stage
    const contestants = (count: number) => {
      const ours = () => createAnswered(icebox, { template }, count)
      return {
        floor: async () => [await restoreAnswered(stage, templateSnapshot, 'memory', count, signal)],
        plain: async () => [await ours()],
        slots: async () => {
          await stage.slots(count)
          try {
            return [await ours()]
          } finally {
            await stage.slots(0)
          }
        },
      }
    }
    const one = await interleave(effort.rounds.short, contestants(1), signal)
    const burst = await interleave(effort.rounds.long, contestants(effort.burst), signal)
    const named = `create, ${effort.burst} at once`
    const wall = ['until the last of them has answered']
    return [
      result('create', 'ms', { ours: one.plain, floor: one.floor }, WITHOUT_SLOTS),
      result('create, slots', 'ms', { ours: one.slots, floor: one.floor }, WITH_SLOTS),
      result(named, 'ms', { ours: burst.plain, floor: burst.floor }, WITHOUT_SLOTS, wall),
      result(`${named}, slots`, 'ms', { ours: burst.slots, floor: burst.floor }, WITH_SLOTS, wall),
    ]
  },
}
