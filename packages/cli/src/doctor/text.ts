import { paint } from '../output.ts'
import { visible } from '../visible.ts'
import type { Check, Diagnosis } from './diagnosis.ts'

const TITLES: Record<Check['group'], string> = {
  host: 'This machine',
  programs: 'Programs',
  builds: 'Built for Icebox',
  storage: 'Storage',
  server: 'The server',
}
const MARKS = {
  ok: ['green', '✔'],
  missing: ['red', '✘'],
  warning: ['yellow', '!'],
  info: ['dim', '·'],
} as const

/** A diagnosis as people read it, with what to do. */
export function diagnosisText(diagnosis: Diagnosis): string {
  const lines: string[] = []
  const width = Math.max(...diagnosis.checks.map((check) => check.id.length))
  const line = (status: Check['status'], id: string, text: string) => {
    const [colour, mark] = MARKS[status]
    lines.push(`  ${paint(colour, mark)} ${visible(id).padEnd(width)}  ${text}`.trimEnd())
  }
  for (const [group, title] of Object.entries(TITLES)) {
    lines.push(paint('bold', title))
    for (const check of diagnosis.checks.filter((each) => each.group === group)) {
      const found = visible([check.version, check.found].filter(Boolean).join('  '))
      const missing = check.status === 'missing' && !found ? 'missing' : found
      line(check.status, check.id, `${missing} ${paint('dim', `(${check.purpose})`)}`.trimStart())
      if (check.remedy && check.status !== 'ok')
        lines.push(`${' '.repeat(width + 6)}${paint('cyan', '→')} ${visible(check.remedy)}`)
    }
    lines.push('')
  }
  lines.push(paint('bold', 'Driver'))
  for (const { name, usable, version, reason } of diagnosis.driver.candidates)
    line(usable ? 'ok' : 'info', name, visible([version, reason].filter(Boolean).join('  ')))
  lines.push(`  ${diagnosis.driver.chosen ?? 'none'} would run sandboxes: ${visible(diagnosis.driver.reason)}`, '')
  const missing = diagnosis.checks.filter((check) => check.required && check.status === 'missing')
  lines.push(
    diagnosis.ok
      ? paint('green', 'All that is required is there.')
      : paint(
          'red',
          missing.length > 0
            ? `Missing: ${missing.map((check) => check.id).join(', ')}.`
            : 'No driver can run sandboxes.',
        ),
  )
  return `${lines.join('\n')}\n`
}
