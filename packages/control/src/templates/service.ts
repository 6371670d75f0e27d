import { DEFAULT_SIZE, IceboxError, type Template } from '@icebox/model'
import { requireBounded, requireRecords } from '../bounds.ts'
import type { Context } from '../context.ts'
import type { Accepted, Templates } from '../control.ts'
import { slice } from '../page.ts'
import { endRun } from '../sandboxes/run.ts'
import { checkSize } from '../sandboxes/size.ts'
import { requireSnapshotBytes } from '../snapshots/quota.ts'
import { dropSnapshot } from '../snapshots/remove.ts'
import { beginBuild } from './build.ts'
import { operationKey, usableTemplate, visibleTemplate } from './resolve.ts'

export function templateService(context: Context): Templates {
  const { records, operations } = context
  return {
    async build(body, progress) {
      const spec = {
        image: body.image,
        size: checkSize({ ...DEFAULT_SIZE, ...definedOf(body.size) }),
        env: body.env,
        hidden: false,
        ...(context.byInstallation ? { byInstallation: true } : {}),
        ...(body.public === true ? { public: true } : {}),
        ...(body.keepSnapshots === undefined ? {} : { keepSnapshots: body.keepSnapshots }),
        ...(body.startCommand === undefined ? {} : { startCommand: body.startCommand }),
        ...(body.readyCommand === undefined ? {} : { readyCommand: body.readyCommand }),
      }
      const { image, env, startCommand, readyCommand } = spec
      requireBounded({ image, env, startCommand, readyCommand })
      if (records.of('Template').first('name', body.name) === undefined) requireRecords(context, 'Template')
      requireSnapshotBytes(context)
      // Only an equal build is joined.
      const verb = `build ${JSON.stringify(spec)}`
      const current = operations.verb(operationKey(context, body.name))
      if (current !== undefined && current !== verb) {
        const what = current.startsWith('build') ? `a build of ${body.name} with other settings` : `its ${current}`
        throw new IceboxError('Conflict', `cannot build ${body.name}: ${what} is under way`)
      }
      return operations.exclusive(operationKey(context, body.name), verb, (stopping) =>
        beginBuild(context, body.name, spec, progress, stopping),
      )
    },
    get: (ref) => usableTemplate(context, ref),
    list: (page) => records.readSlice('Template', slice(records.of('Template').by('built'), page)),
    async update(ref, changes) {
      const { name } = (await visibleTemplate(context, ref)).metadata
      return records.setSpec('Template', name, ({ spec }) => ({ ...spec, ...changes }))
    },
    async delete(ref) {
      const { name } = (await visibleTemplate(context, ref)).metadata
      operations.stop(
        operationKey(context, name),
        new IceboxError('Conflict', `template ${name} was deleted while it was being built`),
      )
      return operations.exclusiveInTurn(operationKey(context, name), 'delete', () => beginDelete(context, name))
    },
  }
}

function definedOf<T extends object>(object: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>
  }
}

/** Throws `InUse` while a sandbox is being restored from it. */
async function beginDelete(context: Context, name: string): Promise<Accepted<Template>> {
  const { snapshot } = (await context.records.get('Template', name)).status
  const starting = context.cache.all('Sandbox').first('restores', snapshot)
  if (starting !== undefined)
    throw new IceboxError('InUse', `sandbox ${starting.name} is being restored from template ${name}`, {
      remedy: 'Wait until it runs, then delete the template.',
    })
  const resource = await context.records.setStatus('Template', name, ({ status }) => ({ ...status, state: 'deleting' }))
  return { resource, settled: finishTemplateDelete(context, resource) }
}

/** Sandboxes made from it go on: a restored snapshot is complete in itself. */
export async function finishTemplateDelete(context: Context, template: Template): Promise<Template> {
  const { name } = template.metadata
  const { buildExecution, snapshot } = template.status
  if (buildExecution !== undefined) await endRun(context, buildExecution)
  if (snapshot !== undefined) await dropSnapshot(context, snapshot)
  await context.records.remove('Template', name)
  context.log('info', 'template.deleted', { template: name })
  return template
}
