import { IceboxError, type Image } from '@icebox/model'
import { type Context, DEADLINES, within } from '../context.ts'
import type { Images } from '../control.ts'
import { slice } from '../page.ts'
import { resolveRef } from '../records.ts'
import { imageKey, importImage, pullImage } from './ensure.ts'
import { dropHiddenTemplates, usersOfImage } from './use.ts'

export function imageService(context: Context): Images {
  const { records, operations } = context
  const resolve = (ref: string): Promise<Image> =>
    resolveRef(records, 'Image', ref, records.of('Image').where('called', ref))
  return {
    pull: (reference, progress, signal) => pullImage(context, reference, context.byInstallation, progress, signal),
    import: (upload, progress, signal) => importImage(context, upload, progress, signal),
    get: resolve,
    list: (page) => records.readSlice('Image', slice(records.of('Image').by('created'), page)),
    async delete(ref) {
      const { name } = (await resolve(ref)).metadata
      const remove = async () => {
        const image = await removeImage(context, name)
        return { resource: image, settled: Promise.resolve(image) }
      }
      return (await operations.exclusive(imageKey(context, name), 'delete', remove)).resource
    },
  }
}

/** Throws `InUse` when something stands on it. Its bytes go with the last project that has it. */
async function removeImage(context: Context, name: string): Promise<Image> {
  const { records, node } = context
  const image = await records.get('Image', name)
  const users = usersOfImage(context, image)
  if (users.length > 0) {
    throw new IceboxError(
      'InUse',
      `image ${image.spec.reference} is needed by ${users.slice(0, 5).join(', ')}${users.length > 5 ? ` and ${users.length - 5} more` : ''}`,
    )
  }
  await dropHiddenTemplates(context, image)
  await records.remove('Image', name)
  const { digest } = image.spec
  const elsewhere = context.cache.all('Image').first('digest', digest) !== undefined
  if (!elsewhere) await node.removeImage(digest, within(context, DEADLINES.call))
  context.log('info', 'image.deleted', { image: name, reference: image.spec.reference })
  return image
}
