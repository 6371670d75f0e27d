import type { Phases } from '@icebox/model'

/** Measures the parts of one operation, milliseconds by name. */
export class PhaseClock {
  readonly phases: Phases = {}
  #from = performance.now()

  /** Ends a part: the time since the part before. */
  mark(phase: string): void {
    const now = performance.now()
    this.phases[phase] = (this.phases[phase] ?? 0) + now - this.#from
    this.#from = now
  }
}
