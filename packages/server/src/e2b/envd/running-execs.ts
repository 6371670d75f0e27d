import { Code, ConnectError } from '@connectrpc/connect'
import type { ExecInfo, ExecSession, Guest } from '@icebox/model'
import type { Call } from './call.ts'
import type { ProcessSelector } from './generated/process_pb.js'

/** Milliseconds in which a guest must have answered. */
const ATTACH_LIMIT = 30_000

/** An exec that somebody of ours is attached to, so that it is known to run. */
interface Known {
  id: string
  pid: number
  tag: string | undefined
  /** Any attachment, for what is asked by the exec's id. */
  sessions: Set<ExecSession>
  /** The one that stdin is written by: writes of several would not know of each other's. */
  input: Promise<ExecSession> | undefined
}

/**
 * The execs of envd's clients by pid and tag, which they name them by. Pids are one run's own. An exec that nobody streams from is
 * looked for in the guest once and then kept in mind until it exits: keystrokes cost no search.
 */
export class RunningExecs {
  readonly #runs = new Map<string, Map<string, Known>>()

  /** Somebody streams from it. */
  add(execution: string, session: ExecSession): void {
    this.#known(execution, session.info).sessions.add(session)
  }

  remove(execution: string, session: ExecSession): void {
    const known = this.#runs.get(execution)?.get(session.info.id)
    if (known === undefined) return
    known.sessions.delete(session)
    this.#forgetUnused(execution, known)
  }

  /** Any attachment. Throws `not_found` when nothing such runs. */
  async session(call: Call, selector: ProcessSelector | undefined, signal: AbortSignal): Promise<ExecSession> {
    const known = await this.#find(call, selector, signal)
    const [session] = known.sessions
    return session ?? this.#input(call, known)
  }

  /** The attachment to write stdin by. */
  async input(call: Call, selector: ProcessSelector | undefined, signal: AbortSignal): Promise<ExecSession> {
    return this.#input(call, await this.#find(call, selector, signal))
  }

  #known(execution: string, { id, pid, tag }: ExecInfo): Known {
    let run = this.#runs.get(execution)
    if (run === undefined) {
      run = new Map()
      this.#runs.set(execution, run)
    }
    let known = run.get(id)
    if (known === undefined) {
      known = { id, pid, tag, sessions: new Set(), input: undefined }
      run.set(id, known)
    }
    return known
  }

  #forgetUnused(execution: string, { id, sessions, input }: Known): void {
    if (sessions.size > 0 || input !== undefined) return
    const run = this.#runs.get(execution)
    run?.delete(id)
    if (run?.size === 0) this.#runs.delete(execution)
  }

  async #find(call: Call, selector: ProcessSelector | undefined, signal: AbortSignal): Promise<Known> {
    const isMeant = meant(selector)
    for (const known of this.#runs.get(call.execution)?.values() ?? []) if (isMeant(known)) return known
    return this.#known(call.execution, await findExec(call.guest, selector, signal))
  }

  /** Whoever comes while it is being attached waits for the same one. */
  #input({ execution, guest }: Call, known: Known): Promise<ExecSession> {
    if (known.input !== undefined) return known.input
    const input = guest.attach(known.id, 'none', AbortSignal.timeout(ATTACH_LIMIT))
    known.input = input
    const over = () => {
      known.input = undefined
      this.#forgetUnused(execution, known)
    }
    input.then(untilExit).then(over, over)
    return input
  }
}

async function untilExit(session: ExecSession): Promise<void> {
  for await (const event of session.events) if (event.type === 'exit') return
}

/** The newest that runs. Throws `not_found`. */
export async function findExec(
  guest: Guest,
  selector: ProcessSelector | undefined,
  signal: AbortSignal,
): Promise<ExecInfo> {
  const isMeant = meant(selector)
  const exec = (await guest.listExecs(signal)).findLast((each) => each.exit === undefined && isMeant(each))
  if (exec !== undefined) return exec
  const { case: by, value } = selector?.selector ?? {}
  throw new ConnectError(`process with ${by} ${value} not found`, Code.NotFound)
}

function meant(selector: ProcessSelector | undefined): (exec: { pid: number; tag?: string | undefined }) => boolean {
  const { case: by, value } = selector?.selector ?? {}
  switch (by) {
    case 'pid':
      return ({ pid }) => pid === value
    case 'tag':
      return ({ tag }) => tag === value
    case undefined:
      throw new ConnectError('name the process by its pid or tag', Code.InvalidArgument)
  }
}
