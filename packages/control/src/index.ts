export type { Log } from './context.ts'
export type {
  Accepted,
  Connected,
  Control,
  EventFilter,
  EventService,
  Images,
  Keys,
  Project,
  Reached,
  Sandboxes,
  SandboxTokens,
  Snapshots,
  Templates,
  Traffic,
} from './control.ts'
export { openControl } from './open.ts'
export {
  WIRE_STATE_OF_ARTIFACT,
  WIRE_STATE_OF_SANDBOX,
  wireError,
  wireImage,
  wireSandbox,
  wireSnapshot,
  wireTemplate,
} from './wire.ts'
