import type { Kind, ResourceOf } from '@icebox/model'
import type { OnTransition, Records } from '../records.ts'
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

/** Tells every transition, once it is written. */
export const tellTransitions =
  (events: Events): OnTransition =>
  (resource, from, to) => {
    const happening = happeningOf(resource, from, to)
    if (happening !== undefined) events.append(happening)
  }

/**
 * Tells what a crash kept from being told: of each resource the transition into its present state, and of those that were
 * told and are gone, that. What happened in between stays untold.
 */
export async function tellMissed(events: Events, records: Records): Promise<void> {
  const key = (kind: string, project: string, name: string) => JSON.stringify([kind, project, name])
  const kept = events.list({})
  const told = new Map(
    // A server that died is no resource that could be missed.
    kept
      .filter(({ kind }) => kind !== 'Server')
      .map((event) => [key(event.kind, event.project, event.resource), event]),
  )
  const resources = [
    ...(await records.listEverywhere('Sandbox')),
    ...(await records.listEverywhere('Snapshot')),
    ...(await records.listEverywhere('Template')),
  ]
  for (const resource of resources) {
    const own = key(resource.kind, resource.metadata.namespace, resource.metadata.name)
    const last = told.get(own)
    told.delete(own)
    const happening = happeningOf(resource, last?.to)
    if (happening === undefined || (last?.to === happening.to && last.at === happening.at)) continue
    // What happened before all that is kept was told, and is forgotten.
    if (last === undefined && events.isForgotten(happening.project, happening.at)) continue
    events.append(happening)
  }
  for (const {
    id: _id,
    verb: _verb,
    operation: _operation,
    reason: _reason,
    message: _message,
    ...last
  } of told.values())
    if (last.to !== 'deleted') events.append({ ...last, at: new Date().toISOString(), from: last.to, to: 'deleted' })
}
