import { DEFAULT_PROJECT, IceboxError, type Template } from '@icebox/model'
import type { TemplateSummary } from '../cache/summary.ts'
import type { Context, Finding } from '../context.ts'
import { oldestFirst } from '../page.ts'

/** Names what is under way for a template: its name is its own only within its project. */
export const operationKey = (context: Context, name: string): string => `${context.records.namespace}/${name}`

/** A template of this name that users see. */
export async function visibleTemplate({ records }: Pick<Context, 'records'>, name: string): Promise<Template> {
  const template = await records.find('Template', name)
  if (template === undefined || template.spec.hidden) {
    throw new IceboxError('NotFound', `no template is named ${JSON.stringify(name)}`, { details: { template: name } })
  }
  return template
}

/**
 * One of the project's own or, when it has none of the name, a public one: the installation's own before others, and then the
 * oldest, so that nobody takes a name that is known over by publishing it once more.
 */
export async function usableTemplate(context: Finding, name: string): Promise<Template> {
  const own = await context.records.find('Template', name)
  if (own !== undefined) return visibleTemplate(context, name)
  const isOther = ({ namespace }: TemplateSummary) => Number(namespace !== DEFAULT_PROJECT)
  const shared = [...context.cache.all('Template').where('public', name)]
  const [first] = shared.sort((a, b) => isOther(a) - isOther(b) || oldestFirst(a, b))
  const owner = first === undefined ? undefined : context.project(first.namespace)
  return (await owner?.records.find('Template', name)) ?? visibleTemplate(context, name)
}

/** One that sandboxes can be made from, after a build that is under way: who asks for it now means what is being made. */
export async function readyTemplate(context: Context, name: string, signal: AbortSignal): Promise<Template> {
  let template = await usableTemplate(context, name)
  const key = operationKey(context.project(template.metadata.namespace), name)
  if (template.status.state === 'creating' && context.operations.isBusy(key)) {
    await context.operations.ended(key, signal)
    template = await usableTemplate(context, name)
  }
  if (template.status.state !== 'ready') {
    const why = template.status.message === undefined ? '' : ` (${template.status.message})`
    throw new IceboxError('InvalidState', `template ${name} is ${template.status.state}${why}`, {
      remedy: 'Build it again, or delete it.',
    })
  }
  return template
}
