import type { Image } from '@icebox/model'
import type { Context } from '../context.ts'
import { finishTemplateDelete } from '../templates/service.ts'

/** What stands on the image and would break without it, in words. The hidden templates made of it do not count: they go with it. */
export function usersOfImage({ cache, records }: Context, image: Image): string[] {
  const { name } = image.metadata
  const { digest, reference } = image.spec
  const sandboxes = records.of('Sandbox')
  const templates = new Set(
    [name, digest, reference].flatMap((each) => [...records.of('Template').where('image', each)]),
  )
  // Those of other projects, too: a sandbox of a public template is being made from one.
  const snapshots = [...cache.all('Snapshot').where('image', name)]
  const standing = new Set([
    ...sandboxes.where('image', name),
    ...snapshots.flatMap((snapshot) => [...sandboxes.where('restores', snapshot.name)]),
  ])
  return [
    ...[...standing].map((sandbox) => `sandbox ${sandbox.name}`),
    ...snapshots
      .filter(({ namespace, purpose }) => namespace === records.namespace && purpose !== 'template')
      .map((snapshot) => `snapshot ${snapshot.name}`),
    ...[...templates]
      .filter(
        (template) =>
          !template.hidden &&
          (template.image === name || template.reference === digest || template.state === 'creating'),
      )
      .map((template) => `template ${template.name}`),
    ...[...templates]
      .filter((template) => template.hidden && template.state === 'creating' && template.reference === digest)
      .map(() => 'a sandbox being created'),
  ]
}

export async function dropHiddenTemplates(context: Context, image: Image): Promise<void> {
  const { records } = context
  const hidden = records.of('Template').where('hidden', image.spec.digest)
  for (const template of await records.read('Template', hidden)) await finishTemplateDelete(context, template)
}
