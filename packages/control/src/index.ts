export type { Accepted, Control, Images, Sandboxes, Snapshots, Templates } from './control.ts'
