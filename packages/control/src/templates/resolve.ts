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

/** One that sandboxes can be made from, after a build that is under way: who asks for it now means what is being made. */
export async function readyTemplate(context: Context, name: string, signal: AbortSignal): Promise<Template> {
  let template = await visibleTemplate(context, name)
  if (template.status.state === 'creating' && context.operations.isBusy(name)) {
    await context.operations.ended(name, signal)
    template = await visibleTemplate(context, name)
  }
  if (template.status.state !== 'ready') {
    const why = template.status.message === undefined ? '' : ` (${template.status.message})`
    throw new IceboxError('InvalidState', `template ${name} is ${template.status.state}${why}`, {
      remedy: 'Build it again, or delete it.',
    })
  }
  return template
}
