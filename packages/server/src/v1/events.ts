import type { EventFilter } from '@icebox/control'
import { WireEvent } from '@icebox/model'
import { z } from 'zod'
import type { App, Context } from '../context.ts'
import { DEADLINE } from '../deadline.ts'
import { KEEP_ALIVE, withKeepAlive } from '../keep-alive.ts'
import { line, NDJSON, sendLines } from '../lines.ts'
import { integer } from '../parameters.ts'
import { FAILURES } from '../schemas.ts'
import { sendText } from '../text.ts'

/** Milliseconds after which something is sent although nothing happened, so that proxies keep the connection. */
const QUIET_MS = 15_000
const EVENT_STREAM = 'text/event-stream'

/** What happens to the resources of a project. */
export async function eventRoutes(app: App, context: Context): Promise<void> {
  app.get(
    '/v1/events',
    {
      schema: {
        operationId: 'listEvents',
        summary: 'Every transition of sandboxes, snapshots and templates, oldest first',
        description:
          'With `Accept: text/event-stream` as server-sent events, or `application/x-ndjson` as lines, which go on with what comes; `after` (or `Last-Event-ID`) says where.',
        tags: ['Events'],
        headers: z.object({ 'last-event-id': integer(0, Number.MAX_SAFE_INTEGER).exactOptional() }),
        querystring: z.object({
          after: integer(0, Number.MAX_SAFE_INTEGER).exactOptional().describe('After the event with this id.'),
          resource: z.string().min(1).exactOptional().describe('Of this sandbox, snapshot or template.'),
        }),
        response: {
          200: {
            description: 'The events',
            content: {
              'application/json': { schema: z.array(WireEvent) },
              [EVENT_STREAM]: { schema: WireEvent },
              [NDJSON]: { schema: WireEvent },
            },
          },
          ...FAILURES,
        },
      },
    },
    async (request, reply) => {
      const { query, headers, project } = request
      const after = headers['last-event-id'] ?? query.after
      const filter: EventFilter = { project: project.name, resource: query.resource, after }
      const { accept = '' } = request.raw.headers
      const serverSent = accept.includes(EVENT_STREAM)
      if (!serverSent && !accept.includes(NDJSON)) return context.control.events.list(filter)
      const { started: events, signal } = await context.streams.open(reply, DEADLINE.read, async (opened) =>
        context.control.events.follow(filter, opened),
      )
      if (serverSent) return sendText(reply, inEventStream(events, signal), signal, EVENT_STREAM)
      return sendLines(reply, inLines(events), signal, (error) => ({ error }))
    },
  )

  app.get(
    '/metrics',
    {
      config: { installation: true, frequent: true },
      schema: {
        operationId: 'getMetrics',
        summary: 'Measurements of the whole installation, for Prometheus',
        tags: ['Server'],
        response: {
          200: { description: 'Prometheus text', content: { 'text/plain': { schema: z.string() } } },
          ...FAILURES,
        },
      },
    },
    async (_, reply) => reply.type('text/plain; version=0.0.4; charset=utf-8').send(await context.control.metrics()),
  )
}

async function* inLines(events: AsyncIterable<WireEvent>): AsyncGenerator<string> {
  for await (const event of events) yield line(event)
}

async function* inEventStream(events: AsyncIterable<WireEvent>, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder()
  for await (const event of withKeepAlive(events, QUIET_MS, signal))
    yield encoder.encode(
      event === KEEP_ALIVE
        ? ': still here\n\n'
        : `id: ${event.id}\nevent: ${event.kind.toLowerCase()}.${event.to}\ndata: ${JSON.stringify(event)}\n\n`,
    )
}
