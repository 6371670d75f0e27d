import { IceboxError } from '@icebox/model'
import type { Reference } from './reference.ts'
import type { ImageSource } from './source.ts'

export async function openRegistry(
  reference: Reference & { kind: 'registry' },
  _signal: AbortSignal,
): Promise<ImageSource> {
  throw new IceboxError('NotImplemented', `pulling ${reference.canonical} from a registry is not possible yet`)
}
