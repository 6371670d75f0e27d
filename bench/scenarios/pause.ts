import { mkdir, open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { FloorContainer } from '../floor/container.ts'
import { withFloor } from '../lab.ts'
import { atMost, interleave, type Result, result, timed } from '../measure.ts'
import { withResident } from '../resident.ts'
import type { Scenario } from '../scenario.ts'

async function sync(path: string): Promise<void> {
  const handle = await open(path)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Stops a container and writes it durably into a new directory, which is removed again. */
async function pauseByHand(container: FloorContainer, directory: string, signal: AbortSignal): Promise<number> {
  await mkdir(directory)
  try {
    return await timed(async () => {
      await container.pause(signal)
      await container.checkpoint(directory, signal)
      await Promise.all((await readdir(directory)).map((name) => sync(join(directory, name))))
    })
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

export const pause: Scenario = {
  name: 'pause',
  summary: 'a running sandbox until its state is durable',
  async run(lab, effort, signal) {
    const stage = await lab.stage()
    const results: Result[] = []
    for (const mebibytes of effort.resident) {
      const { floor, ours } = await withResident(stage, mebibytes, async (sandbox) => {
        const taken = await stage.snapshot((await sandbox.snapshot()).id, 'memory')
        const byHand = (container: FloorContainer) => pauseByHand(container, join(lab.directory, 'paused'), signal)
        return interleave(
          effort.rounds.short,
          {
            // Restored anew each time, as ours is: a sentry's second checkpoint finds its memory mapped already.
            floor: async () => [await withFloor(stage, taken, byHand, signal)],
            ours: async () => {
              const milliseconds = await timed(() => sandbox.pause())
              await sandbox.resume()
              return [milliseconds]
            },
          },
          signal,
        )
      })
      results.push(
        result(`pause, ${mebibytes} MiB`, 'ms', { ours, floor }, atMost(1.3), [
          'floor: runsc pause, checkpoint --direct --leave-running and fsync by hand',
        ]),
      )
    }
    return results
  },
}
