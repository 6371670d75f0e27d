import { failureOf, Refusal, report } from './failure.ts'

/**
 * What is printed can have nowhere to go: its reader has seen enough, as in `icebox ps | head`, or the disk is full. This is
 * found out beside whatever a command is doing, so a command that holds something says what is to be done before the end.
 */

/** As a shell reports a program that SIGPIPE ended, which is no failure of ours. */
const NO_READER = 141

const duties = new Set<() => Promise<unknown>>()

/** Has something done before the process ends for want of a place to print to. */
export function beforeOutputIsLost(duty: () => Promise<unknown>): Disposable {
  duties.add(duty)
  return { [Symbol.dispose]: () => void duties.delete(duty) }
}

/** Does what is to be done and gives the status to exit with, `failed` unless it was the reader that went. */
export async function outputLost(error: Error, failed: number, json: boolean): Promise<number> {
  for (const result of await Promise.allSettled([...duties].map((duty) => duty())))
    if (result.status === 'rejected') report(result.reason, json)
  if ('code' in error && error.code === 'EPIPE') return NO_READER
  const { code, message, remedy } = failureOf(error)
  report(new Refusal(code, `what was to be printed is lost: ${message}`, remedy), json)
  return failed
}
