import type { Step } from '@icebox/sdk'
import { note, paint, size } from './output.ts'
import { visible } from './visible.ts'

const WIDTH = 24
const REDRAW_MS = 100
/** Work that is over before is not worth a line. */
const QUIET_MS = { live: 300, plain: 1000 }

/**
 * Shows on stderr how far long work is: a line that is redrawn on a terminal, else one plain line for each phase that takes
 * its time. `done` leaves nothing of the redrawn line behind.
 */
export class ProgressBar implements Disposable {
  readonly #title: string
  readonly #live = process.stderr.isTTY === true
  readonly #begin = performance.now()
  readonly #timer: NodeJS.Timeout | undefined
  #step: Step = {}
  #phaseBegin = performance.now()
  #said: string | undefined
  #drawn = false

  /** @param silent as with --json, when stderr is for programs */
  constructor(title: string, silent: boolean) {
    this.#title = title
    if (silent) return
    this.#timer = setInterval(() => (this.#live ? this.#draw() : this.#say()), REDRAW_MS)
    this.#timer.unref()
  }

  readonly step = (step: Step): void => {
    if (step.phase !== this.#step.phase) this.#phaseBegin = performance.now()
    this.#step = step
  }

  done(): void {
    clearInterval(this.#timer)
    if (this.#drawn) process.stderr.write('\r\u001b[K')
    this.#drawn = false
  }

  [Symbol.dispose](): void {
    this.done()
  }

  #say(): void {
    const { phase } = this.#step
    if (phase === undefined || phase === this.#said || performance.now() - this.#phaseBegin < QUIET_MS.plain) return
    this.#said = phase
    note(visible(`${this.#title}: ${phase}`))
  }

  #draw(): void {
    const elapsedMs = performance.now() - this.#begin
    if (elapsedMs < QUIET_MS.live) return
    const seconds = `${Math.floor(elapsedMs / 1000)}s`
    const parts = [
      paint('bold', visible(this.#title), process.stderr),
      visible(this.#step.phase ?? ''),
      amount(this.#step),
      seconds,
    ]
    process.stderr.write(`\r\u001b[K${clip(parts.filter((part) => part !== '').join('  '))}`)
    this.#drawn = true
  }
}

/** `[######------]  12.3 MiB of 24.0 MiB`, as far as it is known. */
export function amount({ done, total, unit }: Step): string {
  if (done === undefined) return ''
  const text = (value: number) => (unit === 'bytes' ? size(value) : String(value))
  if (total === undefined || total <= 0) return `${text(done)}${unit === 'files' ? ' files' : ''}`
  const filled = Math.round(Math.min(1, done / total) * WIDTH)
  const bar = '#'.repeat(filled) + '-'.repeat(WIDTH - filled)
  return `[${bar}]  ${text(done)} of ${text(total)}${unit === 'files' ? ' files' : ''}`
}

/** A line longer than the terminal would stay behind when it is redrawn. Styles are at its begin, where nothing is cut. */
const clip = (line: string): string => line.slice(0, Math.max(20, (process.stderr.columns || 80) + 8))
