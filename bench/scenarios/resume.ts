import { execTrue, restoreAnswered } from '../answered.ts'
import { atMost, interleave, type Result, result, timed } from '../measure.ts'
import { withResident } from '../resident.ts'
import type { Scenario } from '../scenario.ts'

export const resume: Scenario = {
  name: 'resume',
  summary: 'a paused sandbox until it has answered an exec',
  async run(lab, effort, signal) {
    const stage = await lab.stage()
    const results: Result[] = []
    for (const mebibytes of effort.resident) {
      const { floor, ours } = await withResident(stage, mebibytes, async (sandbox) => {
        const taken = await stage.snapshot((await sandbox.snapshot()).id, 'memory')
        return interleave(
          effort.rounds.short,
          {
            floor: async () => [await restoreAnswered(stage, taken, 'memory', 1, signal)],
            ours: async () => {
              await sandbox.pause()
              await stage.ended()
              return [
                await timed(async () => {
                  await sandbox.resume()
                  await execTrue(sandbox)
                }),
              ]
            },
          },
          signal,
        )
      })
      results.push(
        result(`resume, ${mebibytes} MiB`, 'ms', { ours, floor }, atMost(1.3), [
          'floor: the same memory restored by hand, until it has answered an exec',
        ]),
      )
    }
    return results
  },
}
