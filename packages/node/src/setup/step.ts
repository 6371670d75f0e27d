import { IceboxError } from '@icebox/model'

/** One thing that set-up makes sure of. */
export interface Step {
  name: string
  /** What it is needed for, a few words. */
  why: string
  /** What is there already, in words, or undefined when `run` has to make it. Quick. */
  isDone(signal: AbortSignal): Promise<string | undefined>
  /** Makes it and says what was made. `say` is called with each line of progress. */
  run(say: (line: string) => void, signal: AbortSignal): Promise<string>
  /** What a person can do when it fails. */
  remedy: string
}

export type StepEvent =
  | { kind: 'present'; step: Step; found: string; seconds: number }
  | { kind: 'start'; step: Step }
  | { kind: 'line'; step: Step; line: string }
  | { kind: 'done'; step: Step; made: string; seconds: number }
  | { kind: 'failed'; step: Step; error: Error; seconds: number }

export type Report = (event: StepEvent) => void

/** Does the steps in order, each only when it is not done. The first failure ends it: an IceboxError with the step's remedy. */
export async function runSteps(steps: readonly Step[], report: Report, signal: AbortSignal): Promise<void> {
  for (const step of steps) {
    const started = performance.now()
    const seconds = () => (performance.now() - started) / 1000
    try {
      const found = await step.isDone(signal)
      if (found !== undefined) {
        report({ kind: 'present', step, found, seconds: seconds() })
        continue
      }
      report({ kind: 'start', step })
      const made = await step.run((line) => report({ kind: 'line', step, line }), signal)
      report({ kind: 'done', step, made, seconds: seconds() })
    } catch (thrown) {
      signal.throwIfAborted()
      const error = thrown instanceof Error ? thrown : new Error(String(thrown))
      report({ kind: 'failed', step, error, seconds: seconds() })
      throw new IceboxError('Unavailable', `set-up failed at ${step.name}: ${error.message}`, {
        cause: error,
        remedy: step.remedy,
      })
    }
  }
}
