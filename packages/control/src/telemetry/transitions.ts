import type { Kind, ResourceOf, WireEvent } from '@icebox/model'
import type { Cache, Change } from '../cache/cache.ts'
import type { SummaryOf } from '../cache/summary.ts'
import type { Finding } from '../context.ts'
import type { Events, Happening } from './events.ts'

/** What one transition of a resource is as an event; undefined of what users do not see. */
function happeningOf(resource: ResourceOf[Kind], from: string | undefined, to?: 'deleted'): Happening | undefined {
  const { kind, metadata } = resource
  switch (kind) {
    case 'Image':
    case 'ApiKey':
    case 'UsageRecord':
      return undefined
    case 'Template':
      if (resource.spec.hidden) return undefined
      break
    case 'Snapshot':
      if (resource.spec.purpose !== 'user') return undefined
      break
    case 'Sandbox':
      break
    default:
      return resource satisfies never
  }
  const { state, reason, message, lastTransitionAt } = resource.status
  const operation = resource.kind === 'Sandbox' ? resource.status.operation : undefined
  return {
    at: to === undefined ? lastTransitionAt : new Date().toISOString(),
    project: metadata.namespace,
    kind,
    resource: metadata.name,
    ...(from === undefined ? {} : { from }),
    to: to ?? state,
    ...(reason === undefined || to !== undefined ? {} : { reason }),
    ...(message === undefined || to !== undefined ? {} : { message }),
    ...(operation === undefined || to !== undefined ? {} : { verb: operation.verb, operation: operation.id }),
  }
}

/** Tells every transition, once it is written. What went unseen is told by its end alone. */
export const tellTransitions =
  (events: Events) =>
  ({ before, after, resource }: Change): void => {
    if (before?.state === after?.state || resource === undefined) return
    const happening = happeningOf(resource, before?.state, after === undefined ? 'deleted' : undefined)
    if (happening !== undefined) events.append(happening)
  }

/** Kinds whose transitions are told. */
const TOLD = ['Sandbox', 'Snapshot', 'Template'] as const
/** Resources that were never told of, of which so many of the newest transitions are told. */
const UNTOLD = 10_000

/**
 * Tells what a crash kept from being told: of each resource the transition into its present state, and of those that were
 * told and are gone, that. What happened in between stays untold.
 */
export async function tellMissed(events: Events, context: Omit<Finding, 'records'>): Promise<void> {
  const { cache } = context
  const key = (kind: string, project: string, name: string) => JSON.stringify([kind, project, name])
  const kept = events.list({})
  const told = new Map(
    // A server that died is no resource that could be missed.
    kept
      .filter(({ kind }) => kind !== 'Server')
      .map((event) => [key(event.kind, event.project, event.resource), event]),
  )
  const missed: SummaryOf[(typeof TOLD)[number]][] = []
  for (const kind of TOLD)
    for (const summary of cache.each(kind)) {
      const last = told.get(key(kind, summary.namespace, summary.name))
      if (isHidden(summary) || (last?.to === summary.state && last.at === summary.since)) continue
      // What happened before all that is kept was told, and is forgotten.
      if (last === undefined && events.isForgotten(summary.namespace, summary.since)) continue
      missed.push(summary)
    }
  missed.sort((a, b) => (a.since < b.since ? -1 : 1))
  for (const { kind, namespace, name } of missed.slice(-UNTOLD)) {
    const resource = await context.project(namespace).records.find(kind, name)
    const happening =
      resource === undefined ? undefined : happeningOf(resource, told.get(key(kind, namespace, name))?.to)
    if (happening !== undefined) events.append(happening)
  }
  for (const event of told.values()) {
    if (event.to === 'deleted' || isThere(cache, event)) continue
    const { id: _id, verb: _verb, operation: _operation, reason: _reason, message: _message, ...last } = event
    events.append({ ...last, at: new Date().toISOString(), from: last.to, to: 'deleted' })
  }
}

/** Users do not see it. */
const isHidden = (summary: SummaryOf[(typeof TOLD)[number]]): boolean =>
  summary.kind === 'Snapshot' ? summary.purpose !== 'user' : summary.kind === 'Template' && summary.hidden

function isThere(cache: Cache, { kind, project, resource }: WireEvent): boolean {
  const told = TOLD.find((each) => each === kind)
  return told !== undefined && cache.of(told, project).first('name', resource) !== undefined
}
