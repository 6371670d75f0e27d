import { IceboxError, type Template } from '@icebox/model'
import type { Context } from '../context.ts'

/** A template of this name that users see. */
export async function visibleTemplate(context: Context, name: string): Promise<Template> {
  const template = await context.records.find('Template', name)
  if (template === undefined || template.spec.hidden) {
    throw new IceboxError('NotFound', `no template is named ${JSON.stringify(name)}`, { details: { template: name } })
  }
  return template
}

/** One that sandboxes can be made from. */
export async function readyTemplate(context: Context, name: string): Promise<Template> {
  const template = await visibleTemplate(context, name)
  if (template.status.state !== 'ready') {
    const why = template.status.message === undefined ? '' : ` (${template.status.message})`
    throw new IceboxError('InvalidState', `template ${name} is ${template.status.state}${why}`, {
      remedy: 'Wait for its build to end, or delete it and build it again.',
    })
  }
  return template
}
