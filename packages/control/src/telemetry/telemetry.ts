import { IceboxError, type Phases, type Sandbox } from '@icebox/model'
import type { Log } from '../log.ts'
import type { Measured, Metrics } from './metrics.ts'

/** What an operation tells of itself while it goes on. */
export interface Noted {
  phases?: Phases
  [fact: string]: unknown
}

/** One wide line and one measurement per operation, however it ends. */
export class Telemetry {
  readonly metrics: Metrics
  readonly #log: Log

  constructor(metrics: Metrics, log: Log) {
    this.metrics = metrics
    this.#log = log
  }

  /** `of` names the resource. What `work` notes goes into the line; its phases are measured too. */
  async operation<T>(
    operation: Measured,
    of: { project: string; [fact: string]: unknown },
    work: (note: (facts: Noted) => void) => Promise<T>,
  ): Promise<T> {
    const started = performance.now()
    const noted: Noted = {}
    const tell = (failure: IceboxError | undefined) => {
      const ms = Math.round((performance.now() - started) * 10) / 10
      this.metrics.operation(operation, ms, noted.phases ?? {}, failure)
      const outcome =
        failure === undefined
          ? { outcome: 'success' }
          : { outcome: 'failure', code: failure.code, error: failure.message }
      this.#log(failure === undefined ? 'info' : 'error', 'operation', { operation, ...of, ...outcome, ms, ...noted })
    }
    try {
      const result = await work((facts) => Object.assign(noted, facts))
      tell(undefined)
      return result
    } catch (thrown) {
      tell(IceboxError.from(thrown))
      throw thrown
    }
  }
}

/** What names a sandbox in lines of the log. */
export const named = ({ metadata }: Sandbox): { project: string; sandbox: string } => ({
  project: metadata.namespace,
  sandbox: metadata.name,
})
