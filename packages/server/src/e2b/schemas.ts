import { EnvVars, MetadataMap } from '@icebox/model'
import { z } from 'zod'
import { HOST_MASK } from '../gateway/masked-host.ts'
import { integer } from '../parameters.ts'
import { E2bError } from './error.ts'

/** The bodies of E2B's REST API, as they stand on the wire. */

/** What envd, which the server answers for, can do: clients look at it before they use a feature. */
export const ENVD_VERSION = '0.6.4'
/** E2B's id of a client; deprecated there, but required. */
export const CLIENT_ID = 'icebox'

export const SandboxMetadata = z.record(z.string(), z.string())
export const SandboxState = z.enum(['running', 'paused'])
export const LogLevel = z.enum(['debug', 'info', 'warn', 'error'])
const OnTimeout = z.enum(['kill', 'pause'])

const NetworkRule = z.looseObject({
  transform: z.looseObject({ headers: z.record(z.string(), z.string()).optional() }).optional(),
})
const EgressProxy = z.object({
  address: z.string(),
  username: z.string().max(255).optional(),
  password: z.string().max(255).optional(),
})
const egress = {
  allowOut: z.array(z.string()).optional(),
  denyOut: z.array(z.string()).optional(),
  egressProxy: EgressProxy.nullable().optional(),
  rules: z.record(z.string(), z.array(NetworkRule)).optional(),
}
export const NetworkUpdate = z.object({ ...egress, allow_internet_access: z.boolean().optional() })
export const NetworkConfig = z.object({
  /** false: ports answer only with the traffic access token. */
  allowPublicTraffic: z.boolean().optional(),
  ...egress,
  maskRequestHost: z.string().regex(HOST_MASK, 'must be a host').optional(),
  httpsPorts: z.array(z.int().min(1).max(65_535)).optional(),
})
export type NetworkConfig = z.infer<typeof NetworkConfig>

/** Not offered: a create that asks for one of these is refused by name. */
const unsupported = z.unknown().optional()

/** Seconds from now. */
const Timeout = z.int().min(0).max(2_592_000)
/** The same, where nothing left means an end as soon as there can be one. */
export const lifetime = (timeout: number): number => Math.max(1, timeout)

const newSandbox = {
  /** Name or id of a template or snapshot. */
  templateID: z.string().min(1),
  autoPause: z.boolean().default(false),
  autoPauseMemory: z.boolean().optional(),
  autoResume: z.object({ enabled: z.boolean() }).optional(),
  allow_internet_access: z.boolean().optional(),
  network: NetworkConfig.optional(),
  metadata: MetadataMap.default({}),
  envVars: EnvVars.default({}),
  mcp: unsupported,
  iam: unsupported,
  volumeMounts: unsupported,
}
export const NewSandbox = z.object({
  ...newSandbox,
  timeout: Timeout.default(15),
  secure: z.boolean().default(false),
})
export const NewSandboxV2 = z.object({ ...newSandbox, timeout: Timeout.default(300) })
export type NewSandbox = z.infer<typeof NewSandbox>
export type NewSandboxV2 = z.infer<typeof NewSandboxV2>

const started = {
  templateID: z.string(),
  sandboxID: z.string(),
  clientID: z.string(),
  envdVersion: z.string(),
  alias: z.string().optional(),
}
export const E2bSandbox = z.object({
  ...started,
  /** For the guest services of a secured sandbox. */
  envdAccessToken: z.string().optional(),
  /** For its ports, when they are not public. */
  trafficAccessToken: z.string().nullable().optional(),
  domain: z.string().nullable().optional(),
})
export type E2bSandbox = z.infer<typeof E2bSandbox>

const listed = {
  ...started,
  startedAt: z.iso.datetime(),
  /** When its time is over; of a paused one, when it was paused. */
  endAt: z.iso.datetime(),
  cpuCount: z.int(),
  memoryMB: z.int(),
  diskSizeMB: z.int(),
  metadata: SandboxMetadata,
  state: SandboxState,
  volumeMounts: z.array(z.object({ name: z.string(), path: z.string() })),
}
export const ListedSandbox = z.object(listed)
export type ListedSandbox = z.infer<typeof ListedSandbox>
export const SandboxDetail = z.object({
  ...listed,
  envdAccessToken: z.string().optional(),
  allowInternetAccess: z.boolean().nullable(),
  domain: z.string().nullable(),
  network: NetworkConfig.optional(),
  lifecycle: z.object({ autoResume: z.boolean(), onTimeout: OnTimeout }),
})
export type SandboxDetail = z.infer<typeof SandboxDetail>

export const PauseRequest = z.object({ memory: z.boolean().default(true) })
/** `memory: false`: boot from the disk alone. */
export const ResumeRequest = z.object({
  timeout: Timeout.default(15),
  autoPause: z.boolean().optional(),
  memory: z.boolean().optional(),
})
export const ConnectRequest = z.object({ timeout: Timeout, memory: z.boolean().optional() })
export const ConnectRequestV2 = z.object({ timeout: Timeout.default(300), memory: z.boolean().optional() })
export const TimeoutRequest = z.object({ timeout: Timeout })
export const RefreshRequest = z.object({ duration: z.int().min(0).max(3600).default(15) })
export const ForkRequest = z.object({ timeout: Timeout.default(15), count: z.int().min(1).max(100).default(1) })
export const ForkResult = z.union([z.object({ sandbox: E2bSandbox }), z.object({ error: E2bError })])

/** `name`: `[namespace/]alias[:tag]`. */
export const SnapshotRequest = z.object({ name: z.string().optional(), memory: z.boolean().default(true) })
export const SnapshotInfo = z.object({ snapshotID: z.string(), names: z.array(z.string()) })

export const SandboxMetric = z.object({
  timestamp: z.iso.datetime(),
  /** Seconds. */
  timestampUnix: z.int(),
  cpuCount: z.int(),
  cpuUsedPct: z.number(),
  memUsed: z.int(),
  memTotal: z.int(),
  memCache: z.int(),
  diskUsed: z.int(),
  diskTotal: z.int(),
})
export const LogEntry = z.object({
  timestamp: z.iso.datetime(),
  message: z.string(),
  level: LogLevel,
  fields: z.record(z.string(), z.string()),
})
export const SandboxLogs = z.object({
  logs: z.array(z.object({ timestamp: z.iso.datetime(), line: z.string() })),
  logEntries: z.array(LogEntry),
})

const BuildStatus = z.enum(['building', 'waiting', 'ready', 'error'])
const template = {
  templateID: z.string(),
  public: z.boolean(),
  aliases: z.array(z.string()),
  names: z.array(z.string()),
  createdAt: z.iso.datetime(),
  updatedAt: z.iso.datetime(),
  lastSpawnedAt: z.iso.datetime().nullable(),
  spawnCount: z.int(),
}
const size = { cpuCount: z.int(), memoryMB: z.int(), diskSizeMB: z.int() }
export const E2bTemplate = z.object({
  ...template,
  ...size,
  buildID: z.uuid(),
  createdBy: z.object({ id: z.string(), email: z.string().nullable() }).nullable(),
  buildCount: z.int(),
  envdVersion: z.string(),
  buildStatus: BuildStatus,
})
export type E2bTemplate = z.infer<typeof E2bTemplate>
export const TemplateBuild = z.object({
  ...size,
  buildID: z.uuid(),
  status: BuildStatus,
  createdAt: z.iso.datetime(),
  updatedAt: z.iso.datetime(),
  finishedAt: z.iso.datetime().optional(),
  envdVersion: z.string(),
})
export const TemplateWithBuilds = z.object({ ...template, builds: z.array(TemplateBuild) })
export type TemplateWithBuilds = z.infer<typeof TemplateWithBuilds>
export const TemplateAlias = z.object({ templateID: z.string(), public: z.boolean() })
export const TemplateTag = z.object({ tag: z.string(), buildID: z.uuid(), createdAt: z.iso.datetime() })
export const TemplateUpdate = z.object({ public: z.boolean().optional() })
export const TemplateNames = z.object({ names: z.array(z.string()) })
/** `target`: `name:tag` of the build that gets the tags. */
export const AssignTags = z.object({ target: z.string().min(1), tags: z.array(z.string()).min(1).max(100) })
export const AssignedTags = z.object({ tags: z.array(z.string()), buildID: z.uuid() })
export const DeleteTags = z.object({ name: z.string().min(1), tags: z.array(z.string()).min(1).max(100) })

/** Names of their own in the document, which is E2B's alone. */
export const NAMES = z.registry<{ id: string }>()
for (const [id, schema] of Object.entries({
  Error: E2bError,
  NewSandbox,
  NewSandboxV2,
  Sandbox: E2bSandbox,
  ListedSandbox,
  SandboxDetail,
  SandboxNetworkConfig: NetworkConfig,
  SandboxForkResult: ForkResult,
  SnapshotInfo,
  SandboxMetric,
  SandboxLogEntry: LogEntry,
  SandboxLogs,
  Template: E2bTemplate,
  TemplateBuild,
  TemplateWithBuilds,
}))
  NAMES.add(schema, { id })

export const SandboxRef = z.object({ sandboxID: z.string().min(1) })
export const TemplateRef = z.object({ templateID: z.string().min(1) })
/** Of lists in parts, whose next token comes in `X-Next-Token`. */
export const Part = {
  limit: integer(1, 100).default(100),
  nextToken: z.string().exactOptional(),
}
/** Several values: separated by commas or given several times. */
export const commas = <T extends z.ZodType>(item: T, most: number) =>
  z.preprocess(
    (value) => [value].flat().flatMap((each) => (typeof each === 'string' ? each.split(',') : [])),
    z.array(item).min(1).max(most),
  )

const refused = (description: string) => ({ description, content: { 'application/json': { schema: E2bError } } })
/** What every route may answer besides its own answers. */
export const REFUSALS = {
  400: refused('What was asked for is wrong'),
  401: refused('The API key is missing or wrong'),
  403: refused('Called by a name or from a web page that may not'),
  404: refused('There is no such thing'),
  409: refused('Its state does not allow this now'),
  413: refused('The body is too large'),
  422: refused('A snapshot or image cannot be used'),
  429: refused('Too many requests, or a limit is reached'),
  502: refused('The guest does not answer'),
  503: refused('Not now; it may go well the next time'),
  507: refused('No space left'),
}
