import { randomUUID } from 'node:crypto'
import type { Project } from '@icebox/control'
import type { ExecSession } from '@icebox/model'

/** A sandbox as a client calls it, among those of the client's project. */
export interface Called {
  project: Project
  id: string
}

/**
 * The attachments to execs that clients stream from at the moment, newest first. Keystrokes, signals and window sizes go
 * through them: attaching anew for each would cost a round trip.
 */
export class AttachedExecs {
  readonly #attached = new Map<string, { attachment: string; session: ExecSession }[]>()

  /**
   * Gives the attachment's own name. Other names for the same sandbox only miss, and attach anew.
   */
  add(sandbox: Called, session: ExecSession): string {
    const key = keyOf(sandbox, session.info.id)
    const attachment = randomUUID()
    this.#attached.set(key, [{ attachment, session }, ...(this.#attached.get(key) ?? [])])
    return attachment
  }

  remove(sandbox: Called, session: ExecSession): void {
    const key = keyOf(sandbox, session.info.id)
    const others = (this.#attached.get(key) ?? []).filter((other) => other.session !== session)
    if (others.length > 0) this.#attached.set(key, others)
    else this.#attached.delete(key)
  }

  /** The one of that name, or any. */
  get(sandbox: Called, exec: string, attachment?: string): ExecSession | undefined {
    const all = this.#attached.get(keyOf(sandbox, exec)) ?? []
    return all.find((each) => attachment === undefined || each.attachment === attachment)?.session
  }
}

const keyOf = (sandbox: Called, exec: string): string => JSON.stringify([sandbox.project.name, sandbox.id, exec])
