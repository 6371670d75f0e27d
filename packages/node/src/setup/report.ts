import { stripVTControlCharacters } from 'node:util'
import type { Report, StepEvent } from './step.ts'

/** Where a report goes: process.stdout, process.stderr, or anything that takes text. */
export interface Output {
  write(text: string): unknown
  isTTY?: boolean
  columns?: number
}

const took = (seconds: number) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`)

/**
 * A report of set-up steps for people: one line for each step, and under a running step the last line of what it does when
 * the output is a terminal. In a log, that line is left out; a failure shows all that the step said at its end.
 */
export function stepReport(output: Output): Report {
  const terminal = output.isTTY === true
  const paint = (code: number, text: string) => (terminal ? `\x1b[${code}m${text}\x1b[0m` : text)
  const clear = terminal ? '\r\x1b[K' : ''
  const line = (mark: string, event: StepEvent, text: string) =>
    output.write(`${clear}${mark} ${event.step.name.padEnd(14)} ${text}\n`)
  return (event) => {
    switch (event.kind) {
      case 'present':
        line(paint(32, '✔'), event, `already there: ${event.found} ${paint(2, `(${took(event.seconds)})`)}`)
        break
      case 'start':
        line(paint(36, '…'), event, `${event.step.why}: not there yet`)
        break
      case 'line': {
        if (!terminal) break
        const room = Math.max(20, (output.columns ?? 80) - 3)
        const plain = stripVTControlCharacters(event.line)
        output.write(`${clear}  ${paint(2, [...plain].slice(0, room).join(''))}`)
        break
      }
      case 'done':
        line(paint(32, '✔'), event, `${event.made} in ${took(event.seconds)}`)
        break
      case 'failed':
        line(paint(31, '✘'), event, `failed after ${took(event.seconds)}`)
        output.write(`${event.error.message.replaceAll(/^/gm, '    ')}\n  What to do: ${event.step.remedy}\n`)
        break
    }
  }
}
