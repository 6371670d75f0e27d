export { type Composition, openIcebox, type RunningIcebox } from './compose.ts'
