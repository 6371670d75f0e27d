import { type PageRequest, type Project, type Slice, sliceOf } from '@icebox/control'
import { IceboxError, isError, type Snapshot, type Template } from '@icebox/model'
import { z } from 'zod'
import type { App, Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { Nothing } from '../schemas.ts'
import {
  DEFAULT_TAG,
  parseName,
  requireTag,
  snapshotsOf,
  type TemplateName,
  tagsOf,
  templateNotFound,
} from './names.ts'
import { sendNext, settled } from './present.ts'
import {
  AssignedTags,
  AssignTags,
  DeleteTags,
  E2bTemplate,
  Part,
  REFUSALS,
  TemplateAlias,
  TemplateNames,
  TemplateRef,
  TemplateTag,
  TemplateUpdate,
  TemplateWithBuilds,
} from './schemas.ts'
import { buildTag, e2bTemplate, named, ofSnapshots, withBuilds } from './template-wire.ts'

/** What a name means: a template, or the snapshots of that name, newest first. */
type Found = { template: Template } | { snapshots: [Snapshot, ...Snapshot[]] }

/** Throws `NotFound`. */
async function find(project: Project, ref: string, signal: AbortSignal): Promise<Found & { name: TemplateName }> {
  const name = parseName(project, ref)
  if (name === undefined) throw templateNotFound(ref)
  if (name.tag === undefined || name.tag === DEFAULT_TAG)
    try {
      return { name, template: await project.templates.get(name.alias, signal) }
    } catch (error) {
      if (!isError(error, 'NotFound')) throw error
    }
  const [newest, ...older] = await snapshotsOf(project, name, signal)
  if (newest === undefined) throw templateNotFound(ref)
  return { name, snapshots: [newest, ...older] }
}

/** Templates, and named snapshots where clients ask for them as for templates. Their builds are not offered. */
export async function templateRoutes(app: App, context: Context): Promise<void> {
  const tags = ['templates']
  const listed = async (project: Project, page: PageRequest, signal: AbortSignal): Promise<Slice<Template>> => {
    const { items, ...part } = await project.templates.list(page, signal)
    return { ...part, items: items.filter(({ status }) => status.state !== 'deleting') }
  }

  app.get(
    '/templates',
    {
      schema: {
        operationId: 'listTemplates',
        summary: 'List the templates of the project, newest first',
        tags,
        querystring: z.object({ teamID: z.string().exactOptional() }),
        response: { 200: z.array(E2bTemplate), ...REFUSALS },
      },
    },
    async ({ project }, reply) => {
      const page = { limit: Number.POSITIVE_INFINITY }
      const { items } = await within(DEADLINE.read, (signal) => listed(project, page, signal), reply)
      return items.map((each) => e2bTemplate(project, each))
    },
  )

  app.get(
    '/v2/templates',
    {
      schema: {
        operationId: 'listTemplatesV2',
        summary: 'The same in parts',
        tags,
        querystring: z.object({ teamID: z.string().exactOptional(), ...Part }),
        response: { 200: z.array(E2bTemplate), ...REFUSALS },
      },
    },
    async ({ query, project }, reply) => {
      const page = { limit: query.limit, after: query.nextToken }
      const { items, next } = await within(DEADLINE.read, (signal) => listed(project, page, signal), reply)
      sendNext(reply, next)
      return items.map((each) => e2bTemplate(project, each))
    },
  )

  app.get(
    '/templates/:templateID',
    {
      schema: {
        operationId: 'getTemplate',
        summary: 'Show a template with its builds',
        tags,
        params: TemplateRef,
        querystring: z.object(Part),
        response: { 200: TemplateWithBuilds, ...REFUSALS },
      },
    },
    async ({ params, query, project }, reply) => {
      const found = await within(DEADLINE.read, (signal) => find(project, params.templateID, signal), reply)
      if ('template' in found) return withBuilds(project, found.template)
      const { items, next } = sliceOf(found.snapshots, { limit: query.limit, after: query.nextToken })
      sendNext(reply, next)
      return ofSnapshots(project, found.snapshots, items)
    },
  )

  for (const [url, operationId] of [
    ['/templates/:templateID', 'updateTemplate'],
    ['/v2/templates/:templateID', 'updateTemplateV2'],
  ] as const)
    app.patch(
      url,
      {
        schema: {
          operationId,
          summary: 'Let other projects make sandboxes from a template, or no more',
          tags,
          params: TemplateRef,
          body: TemplateUpdate,
          response: { 200: TemplateNames, ...REFUSALS },
        },
      },
      async ({ params, body, project }) => {
        const template = await within(DEADLINE.read, async (signal) => {
          const { template: found } = requireTemplate(project, await find(project, params.templateID, signal))
          const isPublic = body.public ?? found.spec.public === true
          return project.templates.update(found.metadata.name, { public: isPublic }, signal)
        })
        return { names: named(project, template).names }
      },
    )

  app.delete(
    '/templates/:templateID',
    {
      schema: {
        operationId: 'deleteTemplate',
        summary: 'Delete a template, or a snapshot: by id, by name with a tag, or all of a name',
        tags,
        params: TemplateRef,
        response: { 204: Nothing, ...REFUSALS },
      },
    },
    async ({ params, project }, reply) => {
      const found = await within(DEADLINE.read, (signal) => find(project, params.templateID, signal))
      if ('template' in found) {
        const { name } = requireTemplate(project, found).template.metadata
        await settled(context, (signal) => project.templates.delete(name, signal))
      } else
        for (const { metadata } of found.snapshots)
          await settled(context, (signal) => project.snapshots.delete(metadata.name, signal))
      return reply.code(204).send()
    },
  )

  app.get(
    '/templates/aliases/:alias',
    {
      schema: {
        operationId: 'getTemplateAlias',
        summary: 'Whether there is a template or named snapshot of the name',
        tags,
        params: z.object({ alias: z.string().min(1) }),
        response: { 200: TemplateAlias, ...REFUSALS },
      },
    },
    async ({ params, project }, reply) => {
      const found = await within(DEADLINE.read, (signal) => find(project, params.alias, signal), reply)
      return { templateID: found.name.alias, public: 'template' in found && found.template.spec.public === true }
    },
  )

  app.get(
    '/templates/:templateID/tags',
    {
      schema: {
        operationId: 'listTemplateTags',
        summary: 'The tags of a template or of the snapshots of a name',
        tags: ['tags'],
        params: TemplateRef,
        response: { 200: z.array(TemplateTag), ...REFUSALS },
      },
    },
    async ({ params, project }, reply) => {
      const found = await within(DEADLINE.read, (signal) => find(project, params.templateID, signal), reply)
      if ('snapshots' in found)
        return found.snapshots.flatMap((snapshot) => tagsOf(snapshot).map((tag) => buildTag(tag, snapshot)))
      return [buildTag(DEFAULT_TAG, found.template)]
    },
  )

  app.post(
    '/templates/tags',
    {
      schema: {
        operationId: 'assignTemplateTags',
        summary: 'Give tags to a named snapshot; they are taken from those of the same name that have them',
        tags: ['tags'],
        body: AssignTags,
        response: { 201: AssignedTags, ...REFUSALS },
      },
    },
    async ({ body, project }, reply) => {
      const wanted = body.tags.map(requireTag)
      const snapshot = await within(DEADLINE.read, async (signal) => {
        const { alias, tag = DEFAULT_TAG } = parseName(project, body.target) ?? {}
        if (alias === undefined) throw templateNotFound(body.target)
        const [target] = requireSnapshots(await find(project, `${alias}:${tag}`, signal))
        return project.snapshots.tag(target.metadata.name, wanted, signal)
      })
      return reply.code(201).send({ tags: wanted, buildID: snapshot.metadata.uid })
    },
  )

  app.delete(
    '/templates/tags',
    {
      schema: {
        operationId: 'deleteTemplateTags',
        summary: 'Take tags from the snapshots of a name',
        tags: ['tags'],
        body: DeleteTags,
        response: { 204: Nothing, ...REFUSALS },
      },
    },
    async ({ body, project }, reply) => {
      const unwanted = body.tags.map(requireTag)
      await within(DEADLINE.read, async (signal) => {
        const { alias } = parseName(project, body.name) ?? {}
        if (alias === undefined) throw templateNotFound(body.name)
        const snapshots = requireSnapshots(await find(project, alias, signal))
        for (const tag of unwanted)
          if (!snapshots.some((snapshot) => tagsOf(snapshot).includes(tag))) throw templateNotFound(`${alias}:${tag}`)
        for (const { metadata } of snapshots) await project.snapshots.untag(metadata.name, unwanted, signal)
      })
      return reply.code(204).send()
    },
  )
}

/** The tags of a template come with its builds. Throws `NotImplemented`. */
function requireSnapshots(found: Found): [Snapshot, ...Snapshot[]] {
  if ('snapshots' in found) return found.snapshots
  throw new IceboxError(
    'NotImplemented',
    `'${found.template.metadata.name}' is a template: it has the tag default only`,
  )
}

/** One of the project's own. Throws `NotFound` for another's, `NotImplemented` for snapshots, which are of their project alone. */
function requireTemplate(project: Project, found: Found & { name: TemplateName }): { template: Template } {
  if ('snapshots' in found)
    throw new IceboxError('NotImplemented', `'${found.name.alias}' is a snapshot, and cannot be public`)
  if (found.template.metadata.namespace !== project.name) throw templateNotFound(found.name.alias)
  return found
}
