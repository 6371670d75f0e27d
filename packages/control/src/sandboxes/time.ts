import { IceboxError, type RenewSandbox, type Sandbox, type SandboxSpec } from '@icebox/model'
import type { Context } from '../context.ts'
import { refuse } from './refuse.ts'

/** The reason in the status of a sandbox that was paused because the server went down: its time goes on. */
export const PAUSED_BY_SHUTDOWN = 'Shutdown'
/** The reason in the status of a sandbox that was paused, or stands still, because its disk was about to fill the host's. */
export const PAUSED_FOR_SPACE = 'DiskFull'
export const SPACE_MESSAGE = 'its disk grew fastest while the disk of the host was about to be full'
/** What a sandbox that is resumed because somebody needs it lives at least, seconds. */
const LEAST_AFTER_WAKING = 300

type Time = Pick<SandboxSpec, 'expiresAt' | 'timeoutSeconds'>

/** Its first time; null and undefined: none. */
export const timeOf = (seconds: number | null | undefined): Time =>
  seconds === undefined || seconds === null
    ? {}
    : { expiresAt: new Date(Date.now() + seconds * 1000).toISOString(), timeoutSeconds: seconds }

/** The spec with another end. The seconds it was given first stay; who has no end any more has none after a pause either. */
function withTime(spec: SandboxSpec, { expiresAt, timeoutSeconds }: Time): SandboxSpec {
  const { expiresAt: _end, timeoutSeconds: first, ...rest } = spec
  if (expiresAt === undefined) return rest
  const seconds = first ?? timeoutSeconds
  return { ...rest, expiresAt, ...(seconds === undefined ? {} : { timeoutSeconds: seconds }) }
}

/** When its time is over: a sandbox that somebody paused has none; it begins anew with its resume. */
export function endOf({ spec, status }: Sandbox): string | undefined {
  return status.state === 'paused' && status.reason !== PAUSED_BY_SHUTDOWN ? undefined : spec.expiresAt
}

/** What is to happen to it when its time is over has still to be done. */
export function isExpiring(sandbox: Sandbox): boolean {
  const { spec, status } = sandbox
  if (endOf(sandbox) === undefined || status.state === 'deleting') return false
  return spec.onTimeout === 'kill' || (status.state !== 'paused' && status.state !== 'failed')
}

export function isPastEnd(sandbox: Sandbox, now: number): boolean {
  const end = endOf(sandbox)
  return end !== undefined && Date.parse(end) <= now
}

export const isDue = (sandbox: Sandbox, now: number): boolean => isExpiring(sandbox) && isPastEnd(sandbox, now)

/**
 * Before a sandbox that does not run begins to: its time from now. Without seconds: those it was given first. The time counts
 * once it is written that it begins to run, which is then to be told to the expiry.
 */
export async function startTime(context: Context, name: string, seconds?: number | null): Promise<void> {
  await context.records.setSpec('Sandbox', name, ({ spec, status }) =>
    status.state === 'paused' || status.state === 'failed'
      ? withTime(spec, timeOf(seconds === undefined ? spec.timeoutSeconds : seconds))
      : undefined,
  )
}

/** It lives so long from now, or longer; null: for ever. Leaves one alone that does not run and is not about to. */
export async function keepFor(context: Context, name: string, seconds: number | null | undefined): Promise<Sandbox> {
  const sandbox = await context.records.setSpec('Sandbox', name, ({ spec, status }) => {
    const running = status.state === 'running' || status.state === 'resuming' || status.state === 'creating'
    const time = timeOf(seconds)
    return seconds !== undefined && running && isLater(time, spec) ? withTime(spec, time) : undefined
  })
  context.expiry.at(sandbox.spec.expiresAt)
  return sandbox
}

/** Seconds for a sandbox that is resumed because somebody needs it: undefined when it has no end. */
export const afterWaking = ({ spec }: Sandbox): number | undefined =>
  spec.timeoutSeconds === undefined ? undefined : Math.max(LEAST_AFTER_WAKING, spec.timeoutSeconds)

const isLater = (next: Time, present: Time): boolean =>
  present.expiresAt !== undefined &&
  (next.expiresAt === undefined || Date.parse(next.expiresAt) > Date.parse(present.expiresAt))

/** Sets when its time is over. */
export async function renew(context: Context, name: string, body: RenewSandbox): Promise<Sandbox> {
  const next = 'expiresAt' in body ? timeUntil(body.expiresAt) : timeOf(body.timeout)
  const renewed = await context.records.setSpec('Sandbox', name, (sandbox) => {
    const { spec, status } = sandbox
    if (status.state === 'pausing' || status.state === 'deleting')
      throw new IceboxError('Conflict', `cannot change the time of ${name}: it is ${status.state}`)
    if (status.state === 'paused') refuse(sandbox, 'change the time of')
    return body.onlyExtend === true && !isLater(next, spec) ? undefined : withTime(spec, next)
  })
  context.expiry.at(renewed.spec.expiresAt)
  return renewed
}

function timeUntil(expiresAt: string): Time {
  const left = Date.parse(expiresAt) - Date.now()
  if (left <= 0) throw new IceboxError('InvalidArgument', `expiresAt: ${expiresAt} is not in the future`)
  return { expiresAt: new Date(expiresAt).toISOString(), timeoutSeconds: Math.ceil(left / 1000) }
}
