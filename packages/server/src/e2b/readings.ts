import { setTimeout as sleep } from 'node:timers/promises'
import type { Project } from '@icebox/control'
import { isError, type Sandbox } from '@icebox/model'
import { z } from 'zod'
import type { App } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { integer } from '../parameters.ts'
import { recentLines } from './logs.ts'
import { presentSandbox } from './present.ts'
import { commas, LogEntry, LogLevel, REFUSALS, SandboxLogs, SandboxMetric, SandboxRef } from './schemas.ts'

/** Over which the use of the processor is measured, milliseconds. */
const MEASURED_MS = 200
const MIB = 1_048_576
const Seconds = integer(0, Number.MAX_SAFE_INTEGER)

/** What sandboxes use, and what they said. */
export async function readingRoutes(app: App): Promise<void> {
  const tags = ['sandboxes']

  app.get(
    '/sandboxes/:sandboxID/metrics',
    {
      schema: {
        operationId: 'getSandboxMetrics',
        summary: 'What a running sandbox uses now; none of one that is paused, or when now is not in the interval',
        tags,
        params: SandboxRef,
        querystring: z.object({ start: Seconds.exactOptional(), end: Seconds.exactOptional() }),
        response: { 200: z.array(SandboxMetric), ...REFUSALS },
      },
    },
    async ({ params, query, project }, reply) => {
      const metric = await within(
        DEADLINE.read,
        async (signal) => measure(project, await presentSandbox(project, params.sandboxID, signal), signal),
        reply,
      )
      const { start = 0, end = Number.POSITIVE_INFINITY } = query
      return metric === undefined || metric.timestampUnix < start || metric.timestampUnix > end ? [] : [metric]
    },
  )

  app.get(
    '/sandboxes/metrics',
    {
      schema: {
        operationId: 'listSandboxMetrics',
        summary: 'The same of several; what is not running is left out',
        tags,
        querystring: z.object({ sandbox_ids: commas(z.string().min(1), 100) }),
        response: { 200: z.object({ sandboxes: z.record(z.string(), SandboxMetric) }), ...REFUSALS },
      },
    },
    async ({ query, project }, reply) => {
      const measured = await within(
        DEADLINE.read,
        (signal) => Promise.all([...new Set(query.sandbox_ids)].map((id) => measureIfPresent(project, id, signal))),
        reply,
      )
      return { sandboxes: Object.fromEntries(measured.filter((entry) => entry !== undefined)) }
    },
  )

  app.get(
    '/sandboxes/:sandboxID/logs',
    {
      schema: {
        operationId: 'getSandboxLogs',
        summary: 'What became of a sandbox and what its start command wrote, oldest first',
        tags,
        params: SandboxRef,
        querystring: z.object({
          start: integer(0, Number.MAX_SAFE_INTEGER).exactOptional().describe('From this time on, milliseconds.'),
          limit: integer(0, 2_147_483_647).default(1000),
        }),
        response: { 200: SandboxLogs, ...REFUSALS },
      },
    },
    async ({ params, query, project }, reply) => {
      const entries = await within(
        DEADLINE.read,
        async (signal) => {
          const sandbox = await presentSandbox(project, params.sandboxID, signal)
          return recentLines(project, sandbox, { ...query, direction: 'forward' }, signal)
        },
        reply,
      )
      // Clients read a line as JSON.
      const logs = entries.map(({ timestamp, level, message, fields }) => ({
        timestamp,
        line: JSON.stringify({ level, message, ...fields }),
      }))
      return { logs, logEntries: entries }
    },
  )

  app.get(
    '/v2/sandboxes/:sandboxID/logs',
    {
      schema: {
        operationId: 'getSandboxLogsV2',
        summary: 'The same, from either end',
        tags,
        params: SandboxRef,
        querystring: z.object({
          cursor: integer(0, Number.MAX_SAFE_INTEGER)
            .exactOptional()
            .describe('From this time on, or with `backward` back from it, milliseconds.'),
          limit: integer(0, 1000).default(1000),
          direction: z.enum(['forward', 'backward']).default('forward'),
          level: LogLevel.exactOptional().describe('This level and above.'),
          search: z.string().max(256).exactOptional().describe('Part of the message.'),
        }),
        response: { 200: z.object({ logs: z.array(LogEntry) }), ...REFUSALS },
      },
    },
    async ({ params, query, project }, reply) => {
      const { cursor, ...wanted } = query
      const entries = await within(
        DEADLINE.read,
        async (signal) => {
          const sandbox = await presentSandbox(project, params.sandboxID, signal)
          return recentLines(project, sandbox, { ...wanted, start: cursor }, signal)
        },
        reply,
      )
      return { logs: entries }
    },
  )
}

/** Undefined for one that does not run. */
async function measure(project: Project, sandbox: Sandbox, signal: AbortSignal) {
  const { metadata, spec, status } = sandbox
  if (status.state !== 'running') return undefined
  try {
    const before = await project.sandboxes.stats(metadata.name, signal)
    const from = performance.now()
    await sleep(MEASURED_MS, undefined, { signal })
    const after = await project.sandboxes.stats(metadata.name, signal)
    const seconds = (performance.now() - from) / 1000
    const now = new Date()
    const cpuCount = Math.max(1, Math.ceil(spec.size.cpu))
    return {
      timestamp: now.toISOString(),
      timestampUnix: Math.floor(now.getTime() / 1000),
      cpuCount,
      cpuUsedPct: Math.max(0, ((after.cpuSeconds - before.cpuSeconds) / seconds / cpuCount) * 100),
      memUsed: after.memoryBytes,
      memTotal: spec.size.memoryMiB * MIB,
      // Told apart from the rest by nobody: it is in memUsed.
      memCache: 0,
      diskUsed: after.diskBytes,
      diskTotal: spec.size.diskMiB * MIB,
    }
  } catch (error) {
    // It was paused or killed meanwhile.
    if (isError(error, 'InvalidState', 'NotFound', 'Conflict')) return undefined
    throw error
  }
}

async function measureIfPresent(project: Project, id: string, signal: AbortSignal) {
  try {
    const metric = await measure(project, await presentSandbox(project, id, signal), signal)
    return metric === undefined ? undefined : ([id, metric] as const)
  } catch (error) {
    if (isError(error, 'NotFound')) return undefined
    throw error
  }
}
