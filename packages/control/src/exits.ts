import { canExec, IceboxError, isError, type MachineExit, type Sandbox } from '@icebox/model'
import type { Cache } from './cache/cache.ts'
import type { Log } from './log.ts'
import { type Records, settledStatus } from './records.ts'
import { revival } from './sandboxes/revival.ts'

/** Ends of runs that are remembered for those who are about to stand on them. */
const REMEMBERED = 1000

/** Runs that end by themselves: whoever stands on one has failed, with the reason and the way back. */
export class Exits {
  readonly #recordsOf: (project: string) => Records
  readonly #cache: Cache
  readonly #log: Log
  readonly #ended = new Map<string, MachineExit>()

  constructor(recordsOf: (project: string) => Records, cache: Cache, log: Log) {
    this.#recordsOf = recordsOf
    this.#cache = cache
    this.#log = log
  }

  /**
   * A failure to write it down is logged: the reconciler finds that the machine is gone. `endedBy`: when it was last known to run, if
   * that is earlier than now.
   */
  async ended(exit: MachineExit, endedBy?: string): Promise<void> {
    const { execution } = exit
    this.#ended.set(execution, exit)
    for (const oldest of this.#ended.keys()) {
      if (this.#ended.size <= REMEMBERED) break
      this.#ended.delete(oldest)
    }
    try {
      for (const sandbox of [...this.#cache.all('Sandbox').where('execution', execution)])
        if (sandbox.execution === execution) await this.#fail(sandbox, exit, endedBy)
    } catch (error) {
      this.#log('error', 'machine.exit.unrecorded', { execution, error: IceboxError.from(error).message })
    }
  }

  /** To be called once a sandbox was written to stand on the run, which may have ended while nobody did. */
  async check({ metadata, status: { execution } }: Sandbox): Promise<void> {
    const exit = execution === undefined ? undefined : this.#ended.get(execution)
    if (exit !== undefined) await this.#fail(metadata, exit)
  }

  async #fail(
    { namespace, name }: { namespace: string; name: string },
    { execution, reason, message }: MachineExit,
    endedBy?: string,
  ): Promise<void> {
    let failed = false
    try {
      await this.#recordsOf(namespace).setStatus(
        'Sandbox',
        name,
        (sandbox) => {
          const { status } = sandbox
          // A late message about an earlier run changes nothing; an operation under way sees the end itself.
          failed = status.execution === execution && canExec(status.state)
          if (!failed) return undefined
          return { ...settledStatus(status), state: 'failed', reason, message: `${message}${revival(sandbox)}` }
        },
        endedBy,
      )
    } catch (error) {
      if (!isError(error, 'NotFound')) throw error
    }
    if (failed) this.#log('error', 'sandbox.failed', { sandbox: name, execution, reason, message })
  }
}
