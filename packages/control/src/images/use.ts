import type { Image } from '@icebox/model'
import type { Context } from '../context.ts'
import { finishTemplateDelete } from '../templates/service.ts'

/** What stands on the image and would break without it, in words. The hidden templates made of it do not count: they go with it. */
export async function usersOfImage(context: Context, image: Image): Promise<string[]> {
  const { records } = context
  const { name } = image.metadata
  const names = [name, image.spec.digest, image.spec.reference]
  const [sandboxes, snapshots, templates] = await Promise.all([
    records.list('Sandbox'),
    // Those of other projects, too: a sandbox of a public template is being made from one.
    records.listEverywhere('Snapshot'),
    records.list('Template'),
  ])
  const onIt = snapshots.filter(({ spec }) => spec.imageName === name)
  const standing = new Set(onIt.map(({ metadata }) => metadata.name))
  return [
    ...sandboxes
      .filter(({ status }) => status.imageName === name || standing.has(status.operation?.snapshot ?? ''))
      .map(({ metadata }) => `sandbox ${metadata.name}`),
    ...onIt
      .filter(({ metadata, spec }) => metadata.namespace === records.namespace && spec.purpose !== 'template')
      .map(({ metadata }) => `snapshot ${metadata.name}`),
    ...templates
      .filter(
        ({ spec, status }) =>
          !spec.hidden &&
          (status.imageName === name ||
            spec.image === image.spec.digest ||
            (status.state === 'creating' && names.includes(spec.image))),
      )
      .map(({ metadata }) => `template ${metadata.name}`),
    ...templates
      .filter(({ spec, status }) => spec.hidden && status.state === 'creating' && spec.image === image.spec.digest)
      .map(() => 'a sandbox being created'),
  ]
}

export async function dropHiddenTemplates(context: Context, image: Image): Promise<void> {
  for (const template of await context.records.list('Template')) {
    if (template.spec.hidden && template.spec.image === image.spec.digest) await finishTemplateDelete(context, template)
  }
}
