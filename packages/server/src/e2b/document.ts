import { documentOf, type OpenApiDocument, SECURITY } from '../openapi.ts'
import { e2bRoutes } from './routes.ts'
import { NAMES } from './schemas.ts'

/** What this server answers of E2B's REST API, as a document of its own. */
export const e2bDocument = (): Promise<OpenApiDocument> =>
  documentOf({
    info: {
      title: 'Icebox, as clients of E2B call it',
      version: 'v1',
      description: 'The routes of the E2B API that an Icebox server answers. See docs/guides/e2b.md.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    security: { key: SECURITY.key, bearer: SECURITY.bearer },
    routes: e2bRoutes,
    names: NAMES,
  })
