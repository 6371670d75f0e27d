import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { openCrowd } from '../crowd.ts'
import { type Bound, result } from '../measure.ts'
import type { Scenario } from '../scenario.ts'

const LONGEST_MS = 20
const BOUND: Bound = { text: `≤ ${LONGEST_MS} ms`, holds: (ours) => ours.p50 <= LONGEST_MS }
const FEW = 10

/** The longest that the event loop did not turn. */
async function longestStall(milliseconds: number, signal: AbortSignal): Promise<number> {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  await sleep(milliseconds, undefined, { signal })
  delay.disable()
  return delay.max / 1e6
}

export const idle: Scenario = {
  name: 'idle',
  summary: 'longest stall of the event loop of a server that does nothing, with thousands of records; floor: with ten',
  async run(lab, effort, signal) {
    const stall = async (count: number) => {
      await using _crowd = await openCrowd(lab.directory, count, signal)
      // What the start has left to do is not idleness.
      await sleep(effort.idleMs / 4, undefined, { signal })
      return longestStall(effort.idleMs, signal)
    }
    const floor = [await stall(FEW)]
    const ours = [await stall(effort.crowdRecords)]
    return [result('idle', 'ms', { ours, floor }, BOUND)]
  },
}
