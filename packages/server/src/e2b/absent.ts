import { IceboxError } from '@icebox/model'
import type { FastifyRequest } from 'fastify'
import type { App } from '../context.ts'
import { AREAS } from './error.ts'
import { REFUSALS } from './schemas.ts'

const BUILDS: [method: 'GET' | 'POST', url: string, operationId: string][] = [
  ['POST', '/v3/templates', 'buildTemplateV3'],
  ['POST', '/v2/templates', 'buildTemplateV2'],
  ['POST', '/templates', 'buildTemplate'],
  ['POST', '/templates/:templateID', 'rebuildTemplate'],
  ['GET', '/templates/:templateID/files/:hash', 'getTemplateFileUpload'],
  ['POST', '/templates/:templateID/builds/:buildID', 'startTemplateBuild'],
  ['POST', '/v2/templates/:templateID/builds/:buildID', 'startTemplateBuildV2'],
  ['GET', '/templates/:templateID/builds/:buildID/status', 'getTemplateBuildStatus'],
  ['GET', '/templates/:templateID/builds/:buildID/logs', 'getTemplateBuildLogs'],
]

/** What E2B has and Icebox has not says so: builds of templates by name, the rest as what is not found. */
export async function absentRoutes(app: App): Promise<void> {
  for (const [method, url, operationId] of BUILDS)
    app.route({
      method,
      url,
      schema: {
        operationId,
        summary: 'Not offered: templates are built with `icebox template build`',
        tags: ['templates'],
        response: REFUSALS,
      },
      handler: async () => {
        throw new IceboxError(
          'NotImplemented',
          'templates cannot be built over this API; build one on the server with `icebox template build NAME --image IMAGE`',
        )
      },
    })

  const absent = async ({ method, url }: FastifyRequest) => {
    throw new IceboxError('NotFound', `there is no ${method} ${url.split('?', 1)[0]}: this server does not offer it`)
  }
  for (const area of AREAS)
    for (const url of [`/${area}`, `/${area}/*`])
      for (const version of ['', '/v2', '/v3'])
        app.route({
          method: ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'].filter(
            (method) => !app.hasRoute({ method, url: version + url }),
          ),
          url: version + url,
          schema: { hide: true },
          handler: absent,
        })
}
