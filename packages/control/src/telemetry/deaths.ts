import { DEFAULT_PROJECT } from '@icebox/model'
import type { Events } from './events.ts'

/** What a server can die of, when nobody told it to end. */
export const DEATH_CAUSES = [
  /** Its JavaScript heap was full. */
  'OutOfHeap',
  /** The kernel killed it for want of memory. */
  'OutOfMemory',
  /** SIGKILL of somebody, or of the kernel where it cannot be told. */
  'Killed',
  /** Another signal, such as SIGSEGV. */
  'Crashed',
  /** An exception that nothing caught. */
  'Exception',
  /** It ended by itself with a status other than 0, or could not start again. */
  'Failed',
  /** The host went down under it. */
  'HostRestarted',
  /** Nobody saw it. */
  'Unknown',
] as const
export type DeathCause = (typeof DEATH_CAUSES)[number]

export interface ServerDeath {
  /** ISO 8601. */
  at: string
  cause: DeathCause
  message: string
}

/** The deaths of the servers of this data directory before the one that runs. */
export interface ServerDeaths {
  /** Of all that were ever recorded. */
  counts: Readonly<Partial<Record<DeathCause, number>>>
  /** Those of which no event tells yet, oldest first. */
  untold: readonly ServerDeath[]
}

/** One event each, which whoever may see everything of the installation sees. */
export function tellDeaths(events: Events, { untold }: ServerDeaths): void {
  for (const { at, cause, message } of untold)
    events.append({
      ...{ at, project: DEFAULT_PROJECT, kind: 'Server', resource: 'server' },
      ...{ from: 'running', to: 'died', reason: cause, message },
    })
}
