import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { UsageError } from './command.ts'
import { Refusal } from './failure.ts'

/** Files here that a command reads or writes, looked at before anything is done. */

/** Elsewhere `-` is stdin or stdout; to take it for a name would leave a file that nobody meant. Throws UsageError. */
export function notADash(path: string): void {
  if (path === '-') throw new UsageError('- is neither stdin nor stdout here; a file of that name is ./-')
}

const kindOf = async (path: string): Promise<'directory' | 'other' | undefined> => {
  const stats = await stat(path).catch((thrown: unknown) => {
    if (thrown instanceof Error && 'code' in thrown && (thrown.code === 'ENOENT' || thrown.code === 'ENOTDIR'))
      return undefined
    throw thrown
  })
  return stats === undefined ? undefined : stats.isDirectory() ? 'directory' : 'other'
}

const isDirectory = (path: string): Refusal =>
  new Refusal('InvalidArgument', `${path} is a directory`, 'Name a file, not a directory.')

/** Throws UsageError, NotFound (no such file), InvalidArgument (a directory). */
export async function checkInput(path: string): Promise<void> {
  notADash(path)
  const kind = await kindOf(path)
  if (kind === undefined) throw new Refusal('NotFound', `there is no file ${path}`, 'Check the path.')
  if (kind === 'directory') throw isDirectory(path)
}

/** Throws UsageError, NotFound (its directory is not there), InvalidArgument (a directory). */
export async function checkOutput(path: string): Promise<void> {
  notADash(path)
  if ((await kindOf(path)) === 'directory') throw isDirectory(path)
  const parent = dirname(path)
  if ((await kindOf(parent)) !== 'directory')
    throw new Refusal('NotFound', `there is no directory ${parent}`, 'Make it first, or check the path.')
}
