import type { Effort } from './effort.ts'
import type { Lab } from './lab.ts'
import type { Result } from './measure.ts'

/** One thing that is timed, beside its floor. */
export interface Scenario {
  name: string
  /** What is timed, for people. */
  summary: string
  run(lab: Lab, effort: Effort, signal: AbortSignal): Promise<Result[]>
}
