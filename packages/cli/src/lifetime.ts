import type { Flags } from './command.ts'
import { oneOf, timeSeconds } from './values.ts'

export const PAUSE_KINDS = ['memory', 'filesystem'] as const

/** How long a new sandbox lives and what happens then. */
export const LIFETIME_FLAGS = {
  timeout: { summary: 'When its time is over, such as 30m. Default: never.', value: 'TIME' },
  'on-timeout': { summary: 'What happens then: kill (it is deleted, the default) or pause.', value: 'WHAT' },
  'pause-kind': {
    summary: 'What that pause keeps: memory (with its processes, the default) or filesystem (only its files).',
    value: 'KIND',
  },
  'auto-resume': { summary: 'Commands, file calls and connections to its ports resume it when it is paused.' },
} as const satisfies Flags

interface Given {
  timeout: string | undefined
  'on-timeout': string | undefined
  'pause-kind': string | undefined
  'auto-resume': boolean
}

/** As the API takes them. */
export async function lifetime(flags: Given) {
  const { timeout, 'on-timeout': onTimeout, 'pause-kind': pauseKind, 'auto-resume': autoResume } = flags
  return {
    timeout: timeout === undefined ? undefined : await life('--timeout', timeout),
    onTimeout: onTimeout === undefined ? undefined : oneOf('--on-timeout', onTimeout, ['kill', 'pause'] as const),
    pauseKind: pauseKind === undefined ? undefined : oneOf('--pause-kind', pauseKind, PAUSE_KINDS),
    autoResume,
  }
}

/** Seconds that a sandbox is to live. */
export const life = async (flag: string, text: string): Promise<number> =>
  timeSeconds(flag, text, (await import('./limits.ts')).TIMEOUT_SECONDS)
