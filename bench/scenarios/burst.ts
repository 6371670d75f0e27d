import { createAnswered, restoreAnswered } from '../answered.ts'
import { atMost, interleave, result } from '../measure.ts'
import type { Scenario } from '../scenario.ts'

export const burst: Scenario = {
  name: 'burst-50',
  summary: 'HTTP creates from a template, many more at once than there are cores, until each has answered an exec',
  async run(lab, effort, signal) {
    const stage = await lab.stage()
    const { icebox, template, templateSnapshot } = stage
    const { crowd } = effort
    const { ours, floor } = await interleave(
      effort.rounds.long,
      {
        floor: async () => [await restoreAnswered(stage, templateSnapshot, 'memory', crowd, signal)],
        ours: async () => [await createAnswered(icebox, { template }, crowd)],
      },
      signal,
    )
    return [
      result(`create, ${crowd} at once`, 'ms', { ours, floor }, atMost(1.5), [
        'until the last of them has answered',
        'floor: the same number restored by hand, all at once',
      ]),
    ]
  },
}
