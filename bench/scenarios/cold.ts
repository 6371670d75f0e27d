import { createAnswered, restoreAnswered } from '../answered.ts'
import { withSandbox } from '../lab.ts'
import { interleave, REPORTED, result } from '../measure.ts'
import type { Scenario } from '../scenario.ts'

export const cold: Scenario = {
  name: 'cold',
  summary:
    'HTTP create from a filesystem snapshot, which boots instead of being restored, until the first exec has ended',
  async run(lab, effort, signal) {
    const stage = await lab.stage()
    const { icebox, template } = stage
    const taken = await withSandbox(icebox.sandboxes.create({ template }), (sandbox) =>
      sandbox.snapshot({ kind: 'filesystem' }),
    )
    const snapshot = await stage.snapshot(taken.id, 'filesystem')
    const { floor, ours } = await interleave(
      effort.rounds.short,
      {
        floor: async () => [await restoreAnswered(stage, snapshot, 'filesystem', 1, signal)],
        ours: async () => [await createAnswered(icebox, { snapshot: taken.id }, 1)],
      },
      signal,
    )
    return [result('cold', 'ms', { ours, floor }, REPORTED, ['floor: runsc create and start by hand'])]
  },
}
