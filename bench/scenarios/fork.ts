import { execTrue, restoreAnswered } from '../answered.ts'
import { withSandbox } from '../lab.ts'
import { atMost, figures, interleave, result, timed } from '../measure.ts'
import type { Scenario } from '../scenario.ts'

export const fork: Scenario = {
  name: 'fork-20',
  summary: 'children of one running sandbox, from the request until each has answered an exec',
  async run(lab, effort, signal) {
    const stage = await lab.stage()
    const { icebox, template } = stage
    const { children } = effort
    return withSandbox(icebox.sandboxes.create({ template }), async (source) => {
      const taken = await stage.snapshot((await source.snapshot()).id, 'memory')
      const { floor, ours } = await interleave(
        effort.rounds.long,
        {
          floor: async () => [await restoreAnswered(stage, taken, 'memory', children, signal)],
          ours: async () => {
            const milliseconds = timed(async () => {
              // A child that fails makes the fork fail, and with it the benchmark: failures are not averaged.
              const made = await source.fork(children)
              await Promise.all(made.map(execTrue))
            })
            try {
              return [await milliseconds]
            } finally {
              const others = (await icebox.sandboxes.list()).filter(({ id }) => id !== source.id)
              await Promise.all(others.map((child) => child.delete()))
            }
          },
        },
        signal,
      )
      const forks = effort.rounds.long + 1
      const stopped = await stage.phases('fork', forks)
      const { p50, p95 } = figures(stopped.map(({ stopped: ms }) => Number(ms)))
      return [
        result(`fork-${children}`, 'ms', { ours, floor }, atMost(1.2), [
          `0 of ${forks * children} children failed`,
          `the source stood still for ${p50.toFixed(0)} ms (p95 ${p95.toFixed(0)} ms)`,
          `floor: ${children} restores by hand at once, of a snapshot taken before`,
        ]),
      ]
    })
  },
}
