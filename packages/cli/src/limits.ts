import { DisplayName, EnvVars, ProjectName, Size, TimeoutSeconds } from '@icebox/model'
import { UsageError } from './command.ts'
import type { Bounds } from './values.ts'

/**
 * What the API allows, as its schemas have it. Imported by a command only when it is given such a value: the schemas take
 * longer to load than many commands run.
 */

const boundsOf = ({ minValue, maxValue }: { minValue: number | null; maxValue: number | null }): Bounds => ({
  min: minValue ?? Number.NEGATIVE_INFINITY,
  max: maxValue ?? Number.POSITIVE_INFINITY,
})

/** Of the life of a sandbox. */
export const TIMEOUT_SECONDS = boundsOf(TimeoutSeconds)
export const CPU = boundsOf(Size.shape.cpu)
export const MEMORY_MIB = boundsOf(Size.shape.memoryMiB)
export const DISK_MIB = boundsOf(Size.shape.diskMiB)

/** Throws UsageError for what nothing can be called. */
export const displayName = (flag: string, text: string): string => named(DisplayName, flag, text)
/** Throws UsageError for what no project can be called. */
export const projectName = (flag: string, text: string): string => named(ProjectName, flag, text)

function named(schema: typeof DisplayName, flag: string, text: string): string {
  const parsed = schema.safeParse(text)
  if (parsed.success) return parsed.data
  throw new UsageError(`${flag} ${parsed.error.issues[0]?.message}, not ${JSON.stringify(text)}`)
}

/** Throws UsageError for a variable with a name that no shell could use. */
export function variables(flag: string, values: Record<string, string>): Record<string, string> {
  const parsed = EnvVars.safeParse(values)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const why = issue?.code === 'invalid_key' ? issue.issues[0]?.message : issue?.message
  throw new UsageError(`${flag} ${String(issue?.path[0])}: the part before = ${why}`)
}
