import type { ExecSession } from '@icebox/model'

/**
 * The attachments to execs that clients stream from at the moment, newest first. Keystrokes, signals and window sizes go
 * through them: attaching anew for each would cost a round trip, and would send the output kept so far once more.
 */
export class AttachedExecs {
  readonly #sessions = new Map<string, ExecSession[]>()

  /** `sandbox` as its client calls it: other names for the same sandbox only miss, and attach anew. */
  add(sandbox: string, session: ExecSession): void {
    const key = keyOf(sandbox, session.info.id)
    this.#sessions.set(key, [session, ...(this.#sessions.get(key) ?? [])])
  }

  remove(sandbox: string, session: ExecSession): void {
    const key = keyOf(sandbox, session.info.id)
    const others = (this.#sessions.get(key) ?? []).filter((other) => other !== session)
    if (others.length > 0) this.#sessions.set(key, others)
    else this.#sessions.delete(key)
  }

  get(sandbox: string, exec: string): ExecSession | undefined {
    return this.#sessions.get(keyOf(sandbox, exec))?.[0]
  }
}

const keyOf = (sandbox: string, exec: string): string => JSON.stringify([sandbox, exec])
