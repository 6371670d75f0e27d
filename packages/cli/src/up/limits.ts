import { readFile } from 'node:fs/promises'
import { Limits } from '@icebox/control'
import { UsageError } from '../command.ts'

/** The limits in a file of JSON; what it does not name takes its default. Throws UsageError that says what is wrong. */
export async function readLimits(file: string): Promise<Limits> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    throw new UsageError(`--limits ${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`)
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new UsageError(`--limits ${file} is not JSON`)
  }
  const parsed = Limits.safeParse(value)
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map(({ path, message }) => [path.join('.'), message].filter(Boolean).join(': '))
  throw new UsageError(`--limits ${file}: ${problems.join('; ')}`)
}
