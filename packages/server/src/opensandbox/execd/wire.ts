import type { FileInfo } from '@icebox/model'
import { z } from 'zod'
import { ExecdError } from './failure.ts'

/** A mode as execd writes it: the octal digits read as a decimal number, 755 for rwxr-xr-x. */
export const Mode = z
  .int()
  .refine((mode) => /^[0-7]{1,4}$/.test(String(mode)), { error: 'must be octal digits, such as 755' })
  .transform((mode) => Number.parseInt(String(mode), 8))

/** Absent and empty names change nothing. */
export const Permission = z.object({ owner: z.string().nullish(), group: z.string().nullish(), mode: Mode.nullish() })
export type Permission = z.infer<typeof Permission>

export const Path = z.string().min(1).max(4096)

const TYPES: Record<FileInfo['type'], string> = {
  file: 'file',
  directory: 'directory',
  symlink: 'symlink',
  fifo: 'other',
  socket: 'other',
  device: 'other',
}

/** There is no time of creation to be had: it is given as that of the last change. */
export const wireFile = ({ path, type, size, modifiedAt, owner, group, mode }: FileInfo) => ({
  path,
  type: TYPES[type],
  size,
  modified_at: modifiedAt,
  created_at: modifiedAt,
  owner,
  group,
  mode: Number((mode & 0o777).toString(8)),
})

/** What a missing file is called. */
export const noFile = (path: string) => new ExecdError('file', 'NotFound', `file not found: ${path}`)
