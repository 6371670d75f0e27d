import { STATUS_CODES } from 'node:http'
import swagger from '@fastify/swagger'
import { createJsonSchemaTransform, createJsonSchemaTransformObject } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { createApp } from './app.ts'
import type { App, Context } from './context.ts'
import { FAILURES } from './schemas.ts'
import { routes } from './v1/routes.ts'

interface Operation {
  operationId: string
  summary: string
  tags: string[]
  requestBody?: { required: boolean }
  responses: Record<string, object>
}

/** An OpenAPI 3.1 document, as far as it is looked at here. */
export interface OpenApiDocument {
  openapi: string
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, unknown>; responses?: Record<string, object> }
  [key: string]: unknown
}

const INFO = {
  title: 'Icebox',
  version: 'v1',
  description: 'Computers for AI agents that start, fork, pause and resume from snapshots. See docs/reference/api.md.',
  license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
}

export const SECURITY = {
  openSandboxKey: { type: 'apiKey', in: 'header', name: 'OPEN-SANDBOX-API-KEY' },
  key: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
  bearer: { type: 'http', scheme: 'bearer' },
} as const

const operationsOf = ({ paths }: OpenApiDocument): Operation[] =>
  Object.values(paths).flatMap((methods) => Object.values(methods))

/** The native API as a document. */
export async function openApiDocument(): Promise<OpenApiDocument> {
  const document = await documentOf({ info: INFO, security: SECURITY, routes, names: z.globalRegistry })
  nameFailures(document)
  return document
}

export interface Described {
  info: typeof INFO
  security: Record<string, (typeof SECURITY)[keyof typeof SECURITY]>
  routes: (app: App, context: Context) => Promise<void>
  /** Schemas with a name of their own. */
  names: z.core.$ZodRegistry<{ id?: string | undefined }>
}

/** An API as a document, made of the schemas that its routes check with. */
export async function documentOf({ info, security, routes, names }: Described): Promise<OpenApiDocument> {
  const app = createApp({ logger: false })
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info,
      components: { securitySchemes: security },
      security: Object.keys(security).map((name) => ({ [name]: [] })),
    },
    transform: createJsonSchemaTransform({ schemaRegistry: names }),
    transformObject: createJsonSchemaTransformObject({ schemaRegistry: names }),
  })
  const optionalBodies = new Set<string>()
  app.addHook('onRoute', ({ schema }) => {
    if (schema?.body instanceof z.ZodType && schema.body.safeParse(undefined).success)
      optionalBodies.add(schema.operationId ?? '')
  })
  await routes(app, NOTHING)
  await app.ready()
  const document = tidy(app.swagger())
  for (const operation of operationsOf(document))
    if (operation.requestBody !== undefined) operation.requestBody.required = !optionalBodies.has(operation.operationId)
  return document
}

/** What every route may answer is said once. */
function nameFailures(document: OpenApiDocument): void {
  for (const { responses } of operationsOf(document))
    for (const status of Object.keys(FAILURES).map((key) => key.toUpperCase())) {
      const failure = responses[status]
      if (failure === undefined) continue
      document.components.responses = { Failure: failure }
      responses[status] = { $ref: '#/components/responses/Failure' }
    }
}

/** No handler runs to make the document. */
const NOTHING = new Proxy({} as Context, {
  get: (_, name) => {
    throw new Error(`${String(name)} was looked at while routes were registered`)
  },
})

/**
 * Every named schema comes as two, for what is sent (`XInput`) and what is answered (`X`): keeps those that are referred to,
 * and calls the first X where the second is not needed. Leaves out what binds clients to this version (no other properties
 * than these) and what says nothing (the bounds of every integer, a pattern of dates).
 */
function tidy(document: object): OpenApiDocument {
  const { components, ...rest } = document as OpenApiDocument
  const used = new Set<string>()
  const visit = (text: string) => {
    for (const [, name] of text.matchAll(REFERENCE)) {
      if (name === undefined || used.has(name)) continue
      used.add(name)
      visit(JSON.stringify(components.schemas[name]))
    }
  }
  visit(JSON.stringify(rest))
  const nameOf = (name: string): string => {
    const short = name.replace(/Input$/, '')
    return short !== name && !used.has(short) ? short : name
  }
  const schemas = Object.fromEntries([...used].sort().map((name) => [nameOf(name), components.schemas[name]] as const))
  const text = JSON.stringify({ ...rest, components: { ...components, schemas } }).replace(
    REFERENCE,
    (_, name: string) => `"#/components/schemas/${nameOf(name)}"`,
  )
  return JSON.parse(text, function (this: unknown, key, value: unknown) {
    if (key === 'pattern' && isDate(this)) return undefined
    if (key === 'additionalProperties' && value === false) return undefined
    if (key === 'minimum' && value === Number.MIN_SAFE_INTEGER) return undefined
    if (key === 'maximum' && value === Number.MAX_SAFE_INTEGER) return undefined
    if (key === 'responses') return described(value)
    return value
  })
}

const REFERENCE = /"#\/components\/schemas\/([^"]+)"/g

const isDate = (schema: unknown): boolean =>
  typeof schema === 'object' && schema !== null && 'format' in schema && schema.format === 'date-time'

/** Answers without a description of their own get the words of their status. */
const described = (responses: unknown): unknown =>
  Object.fromEntries(
    Object.entries(responses as Record<string, { description: string }>).map(([status, response]) => [
      status,
      response.description === 'Default Response'
        ? { ...response, description: STATUS_CODES[status] ?? status }
        : response,
    ]),
  )
