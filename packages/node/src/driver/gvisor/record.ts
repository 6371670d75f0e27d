import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { asExecutionId, isId, Size } from '@icebox/model'
import { z } from 'zod'
import { ProcessIdentity } from './process.ts'

const FILE = 'machine.json'

/**
 * What is known of a machine, in its run directory for whoever comes after this process. It is written before what it tells
 * of is done, and lost with the host's memory, as the machine is.
 */
export const MachineRecord = z.object({
  version: z.literal(1),
  execution: z.string().refine(isId).transform(asExecutionId),
  /** The runsc container; another name than the execution's when it was made ahead. */
  container: z.string().refine(isId),
  spec: z.object({ imageDigest: z.string(), size: Size }),
  /** sha256 of the guest agent in it. */
  agent: z.string(),
  bootId: z.string(),
  /** The sentry. Absent until there is one. */
  process: ProcessIdentity.optional(),
  /**
   * What is under way. boot and restore: nobody has been given the machine yet. freeze: it was stopped on purpose and stays
   * so until somebody decides. kill: it is wanted no more.
   */
  operation: z.enum(['boot', 'restore', 'freeze', 'kill']).optional(),
})
export type MachineRecord = z.infer<typeof MachineRecord>

/** Replaces the record at once: a reader sees the old or the new one. */
export async function writeRecord(directory: string, record: MachineRecord): Promise<void> {
  const draft = join(directory, `${FILE}.new`)
  await writeFile(draft, JSON.stringify(record))
  await rename(draft, join(directory, FILE))
}

/** Undefined when there is none, or none that can be understood. */
export async function readRecord(directory: string): Promise<MachineRecord | undefined> {
  try {
    return MachineRecord.parse(JSON.parse(await readFile(join(directory, FILE), 'utf8')))
  } catch {
    return undefined
  }
}
