import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import type { Sandbox } from '@icebox/sdk'
import { command } from '../../packages/node/src/setup/command.ts'
import { execTrue, TRUE } from '../answered.ts'
import { withFloor, withSandbox } from '../lab.ts'
import { atMost, type Bound, interleave, result, timed } from '../measure.ts'
import type { Scenario } from '../scenario.ts'

const SOURCE = join(import.meta.dirname, '../floor/spawn.c')
const INSIDE = '/usr/local/bin/bench-spawn'
const COMPILE_MS = 60_000

const NEAR_GUEST: Bound = { text: '≤ floor + 2 ms', holds: (ours, floor) => ours.p50 <= floor.p50 + 2 }

/** Milliseconds from spawn to exit as a process in the sandbox itself measures them. */
async function spawnInside(sandbox: Sandbox, count: number): Promise<number[]> {
  const { exitCode, stdout } = await sandbox.exec([INSIDE, String(count), ...TRUE])
  if (exitCode !== 0) throw new Error(`${INSIDE} ended with ${exitCode} in ${sandbox.id}`)
  return stdout
    .trim()
    .split('\n')
    .map((nanoseconds) => Number(nanoseconds) / 1e6)
}

export const exec: Scenario = {
  name: 'exec',
  summary: '/bin/true in a running sandbox through the SDK',
  async run(lab, effort, signal) {
    const stage = await lab.stage()
    const program = join(lab.directory, 'spawn')
    await command('cc', ['-O2', '-static', '-o', program, SOURCE], { deadlineMs: COMPILE_MS }, signal)
    const several = async (once: () => Promise<unknown>) => {
      const values: number[] = []
      for (let i = 0; i < effort.execs; i += 1) values.push(await timed(once))
      return values
    }
    return withSandbox(stage.icebox.sandboxes.create({ template: stage.template }), async (sandbox) => {
      await sandbox.files.write(INSIDE, createReadStream(program), { mode: 0o755 })
      return withFloor(
        stage,
        stage.templateSnapshot,
        async (container) => {
          const contestants = {
            inside: () => spawnInside(sandbox, effort.execs),
            runsc: () => several(() => container.execByRunsc(TRUE, signal)),
            ours: () => several(() => execTrue(sandbox)),
          }
          const { inside, runsc, ours } = await interleave(effort.rounds.short, contestants, signal)
          return [
            result('exec', 'ms', { ours, floor: inside }, NEAR_GUEST, [
              'floor: posix_spawn and wait, measured by a program in the same sandbox',
            ]),
            result('exec, beside runsc', 'ms', { ours, floor: runsc }, atMost(0.65), ['floor: runsc exec by hand']),
          ]
        },
        signal,
      )
    })
  },
}
