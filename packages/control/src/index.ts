export { originOf } from './cache/summary.ts'
export type {
  Accepted,
  Collected,
  Connected,
  Control,
  EventFilter,
  EventService,
  Images,
  Keys,
  Project,
  Reached,
  Sandboxes,
  SandboxFilter,
  SandboxRequest,
  SandboxTokens,
  SandboxUsage,
  Snapshots,
  Templates,
  Traffic,
} from './control.ts'
export { Limits } from './limits.ts'
export type { Log } from './log.ts'
export { openControl } from './open.ts'
export { newestFirst, type Order, type PageRequest, type Slice, sliceOf } from './page.ts'
export type { DeathCause, ServerDeath, ServerDeaths } from './telemetry/deaths.ts'
export {
  WIRE_STATE_OF_ARTIFACT,
  WIRE_STATE_OF_SANDBOX,
  wireApiKey,
  wireError,
  wireImage,
  wireSandbox,
  wireSnapshot,
  wireTemplate,
  wireUsage,
} from './wire.ts'
