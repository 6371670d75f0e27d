import type {
  WireApiKey,
  WireCollected,
  WireImage,
  WireSandbox,
  WireSnapshot,
  WireTemplate,
  WireUsage,
} from '@icebox/sdk'
import { ago, type Column, duration, facts, milliseconds, size, until } from './output.ts'

/** How the objects of the API are shown to people. */

const COLOURS: Record<string, 'green' | 'yellow' | 'red' | 'cyan'> = {
  Running: 'green',
  Ready: 'green',
  Paused: 'cyan',
  Failed: 'red',
}
const state = <R extends { status: { state: string; reason?: string | undefined } }>(): Column<R> => ({
  title: 'STATE',
  cell: ({ status }) => (status.state === 'Failed' && status.reason ? `Failed (${status.reason})` : status.state),
  style: ({ status }) => COLOURS[status.state] ?? 'yellow',
})
const column = <R>(title: string, cell: (row: R) => string | undefined): Column<R> => ({
  title,
  cell: (row) => cell(row) || '-',
})

function sourceOf({ template, image, snapshotId, forkedFrom }: WireSandbox): string {
  if (forkedFrom !== undefined) return `fork of ${forkedFrom}`
  return template ?? image?.uri ?? (snapshotId === undefined ? '' : `snapshot ${snapshotId}`)
}
const limits = ({ cpu, memoryMiB, diskMiB }: WireSandbox['size']): string =>
  `${cpu} cpu, ${size(memoryMiB * 2 ** 20)} memory, ${size(diskMiB * 2 ** 20)} disk`
const command = (argv: readonly string[] | undefined): string | undefined =>
  argv?.map((word) => JSON.stringify(word)).join(' ')
const pairs = (map: Record<string, string>): string =>
  Object.entries(map)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ')
const status = (of: { state: string; reason?: string | undefined; message?: string | undefined }): string =>
  [of.state, of.reason === undefined ? '' : `(${of.reason})`, of.message ?? ''].filter((part) => part !== '').join(' ')

/** Nothing is said of a sandbox without an end that is like any other. */
function atEnd({ timeout, expiresAt, onTimeout, pauseKind }: WireSandbox): string | undefined {
  if (timeout === undefined && expiresAt === undefined && onTimeout === 'kill') return undefined
  return onTimeout === 'pause' ? `pause (${pauseKind})` : 'delete'
}

export const SANDBOX_COLUMNS: Column<WireSandbox>[] = [
  column('ID', ({ id }) => id),
  column('NAME', ({ name }) => name),
  column('FROM', sourceOf),
  state(),
  column('CREATED', ({ createdAt }) => ago(createdAt)),
  column('EXPIRES', ({ expiresAt }) => until(expiresAt)),
]
export const sandboxFacts = (sandbox: WireSandbox): string =>
  facts([
    ['id', sandbox.id],
    ['project', sandbox.project === 'default' ? undefined : sandbox.project],
    ['name', sandbox.name],
    ['from', sourceOf(sandbox)],
    ['state', status(sandbox.status)],
    ['size', limits(sandbox.size)],
    ['entrypoint', command(sandbox.entrypoint)],
    ['metadata', pairs(sandbox.metadata)],
    ['created', `${sandbox.createdAt} (${ago(sandbox.createdAt)})`],
    ['expires', sandbox.expiresAt === undefined ? undefined : `${sandbox.expiresAt} (${until(sandbox.expiresAt)})`],
    ['time', sandbox.timeout === undefined ? undefined : duration(sandbox.timeout)],
    ['at its end', atEnd(sandbox)],
    ['auto-resume', sandbox.autoResume ? 'yes' : undefined],
    ['last snapshot', sandbox.lastSnapshotId],
    ['restored in', milliseconds(sandbox.restoreMs)],
  ])

export const SNAPSHOT_COLUMNS: Column<WireSnapshot>[] = [
  column('ID', ({ id }) => id),
  column('NAME', ({ name }) => name),
  column('KIND', ({ kind }) => kind),
  column('SANDBOX', ({ sandboxId }) => sandboxId),
  state(),
  column('SIZE', ({ sizeBytes }) => (sizeBytes === undefined ? undefined : size(sizeBytes))),
  column('CREATED', ({ createdAt }) => ago(createdAt)),
]
export const snapshotFacts = (snapshot: WireSnapshot): string =>
  facts([
    ['id', snapshot.id],
    ['name', snapshot.name],
    ['kind', snapshot.kind],
    ['state', status(snapshot.status)],
    ['sandbox', snapshot.sandboxId],
    ['parent', snapshot.parentId],
    ['template', snapshot.template],
    ['image', snapshot.image],
    ['size', limits(snapshot.size)],
    ['on disk', snapshot.sizeBytes === undefined ? undefined : size(snapshot.sizeBytes)],
    ['expires', snapshot.expiresAt === undefined ? undefined : `${snapshot.expiresAt} (${until(snapshot.expiresAt)})`],
    ['source stopped', milliseconds(snapshot.stoppedMs)],
    ['created', `${snapshot.createdAt} (${ago(snapshot.createdAt)})`],
  ])

export const TEMPLATE_COLUMNS: Column<WireTemplate>[] = [
  column('NAME', ({ name }) => name),
  column('IMAGE', ({ image }) => image),
  column('CPU', (template) => String(template.size.cpu)),
  column('MEMORY', (template) => size(template.size.memoryMiB * 2 ** 20)),
  column('DISK', (template) => size(template.size.diskMiB * 2 ** 20)),
  state(),
  column('CREATED', ({ createdAt }) => ago(createdAt)),
]
export const templateFacts = (template: WireTemplate): string =>
  facts([
    ['name', template.name],
    ['image', template.image],
    ['state', status(template.status)],
    ['size', limits(template.size)],
    ['env', pairs(template.env)],
    ['start', command(template.startCommand)],
    ['ready', command(template.readyCommand)],
    ['public', template.public === true ? 'yes' : undefined],
    ['keeps', template.keepSnapshots === undefined ? undefined : `the newest ${template.keepSnapshots} snapshots`],
    ['snapshot', template.snapshotId],
    ['boot', milliseconds(template.bootMs)],
    ['created', `${template.createdAt} (${ago(template.createdAt)})`],
  ])

export const KEY_COLUMNS: Column<WireApiKey>[] = [
  column('ID', ({ id }) => id),
  column('PROJECT', ({ project }) => project),
  column('LABEL', ({ label }) => label),
  column('KEY', ({ hint }) => `${hint}...`),
  column('CREATED', ({ createdAt }) => ago(createdAt)),
]

export const USAGE_COLUMNS: Column<WireUsage>[] = [
  column('SANDBOX', ({ sandboxId }) => sandboxId),
  column('RAN', ({ runningSeconds }) => duration(runningSeconds)),
  column('MEMORY', (usage) => size(usage.size.memoryMiB * 2 ** 20)),
  column('MIB-SECONDS', ({ memoryMiBSeconds }) => String(Math.round(memoryMiBSeconds))),
  column('CREATED', ({ createdAt }) => ago(createdAt)),
  column('DELETED', ({ deletedAt }) => (deletedAt === undefined ? undefined : ago(deletedAt))),
]

export const COLLECTED_COLUMNS: Column<WireCollected>[] = [
  column('WHAT', ({ what }) => what),
  column('ID', ({ id }) => id),
  column('PROJECT', ({ project }) => project),
  column('SIZE', ({ bytes }) => (bytes === 0 ? undefined : size(bytes))),
  column('WHY', ({ reason }) => reason),
]

export const IMAGE_COLUMNS: Column<WireImage>[] = [
  column('ID', ({ id }) => id.slice(0, 12)),
  column('REFERENCE', ({ reference }) => reference),
  column('SIZE', ({ sizeBytes }) => size(sizeBytes)),
  state(),
  column('CREATED', ({ createdAt }) => ago(createdAt)),
]
export const imageFacts = (image: WireImage): string =>
  facts([
    ['id', image.id],
    ['reference', image.reference],
    ['digest', image.digest],
    ['state', status(image.status)],
    ['size', size(image.sizeBytes)],
    ['user', image.config.user],
    ['directory', image.config.workingDir],
    ['command', command([...image.config.entrypoint, ...image.config.cmd])],
    ['created', `${image.createdAt} (${ago(image.createdAt)})`],
  ])
