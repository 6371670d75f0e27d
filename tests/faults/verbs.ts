import type { Project } from '@icebox/control'

/** What stands in the memory and on the disk of every sandbox of these tests. */
export const MARK = 'a-mark-that-must-not-be-lost'
export const FORKS = 3
/** The template that is built beside the one of the sandboxes. */
export const BUILT = 'built'

export const VERBS = [
  'create',
  'snapshot',
  'fork',
  'pause',
  'pause without memory',
  'resume',
  'resume without memory',
  'rollback',
  'delete',
  'build',
] as const
export type Verb = (typeof VERBS)[number]
export const isVerb = (text: string): text is Verb => VERBS.some((verb) => verb === text)

export async function perform(project: Project, verb: Verb, sandbox: string, signal: AbortSignal): Promise<void> {
  const { sandboxes, snapshots } = project
  switch (verb) {
    case 'create':
      await (await sandboxes.create({ template: 'marked', env: {}, metadata: {} }, signal)).settled
      return
    case 'snapshot':
      await (await snapshots.create(sandbox, { name: 'taken', kind: 'memory', stop: false }, signal)).settled
      return
    case 'fork': {
      const children = await sandboxes.fork(sandbox, { count: FORKS, env: {} }, signal)
      const failed = children.find((child) => 'error' in child)
      if (failed !== undefined) throw failed.error
      return
    }
    case 'pause':
      await (await sandboxes.pause(sandbox, {}, signal)).settled
      return
    case 'pause without memory':
      await (await sandboxes.pause(sandbox, { kind: 'filesystem' }, signal)).settled
      return
    case 'resume':
    case 'resume without memory':
      await (await sandboxes.resume(sandbox, signal)).settled
      return
    case 'rollback':
      await (await sandboxes.rollback(sandbox, 'earlier', signal)).settled
      return
    case 'delete':
      await (await sandboxes.delete(sandbox, signal)).settled
      return
    case 'build': {
      const [image] = (await project.images.list({ limit: 1 }, signal)).items
      if (image === undefined) throw new Error('there is no image to build of')
      const wanted = { name: BUILT, image: image.spec.digest, size: { memoryMiB: 256 }, env: {} }
      await (await project.templates.build(wanted, () => undefined, signal)).settled
      return
    }
    default:
      verb satisfies never
  }
}
