import type { ChildProcess } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'

/** From -1000, never killed, to 1000, killed first: what the kernel adds when it chooses whom to kill for want of memory. */
const SERVER_SCORE = -900
/** Of a sandbox, which can be had again from a snapshot. The server, which serves all of them, cannot be had twice. */
export const SANDBOX_SCORE = 800

const file = (pid: number | 'self') => `/proc/${pid}/oom_score_adj`

/** What this process was started with; undefined while it still has it. */
let before: string | undefined

/**
 * Has the kernel kill nearly anything before this process; false when it may not be asked to, which takes CAP_SYS_RESOURCE.
 * Children inherit it, and are to be given back what is theirs with `exposeToOom`.
 */
export function protectFromOom(): boolean {
  try {
    const present = readFileSync(file('self'), 'utf8').trim()
    if (Number(present) <= SERVER_SCORE) return true
    writeFileSync(file('self'), String(SERVER_SCORE))
    before = present
    return true
  } catch {
    return false
  }
}

/** Gives a child that was just started the score that it would have had without `protectFromOom`. */
export function exposeToOom({ pid }: ChildProcess): void {
  if (pid === undefined || before === undefined) return
  try {
    writeFileSync(file(pid), before)
  } catch {
    // It has ended.
  }
}
