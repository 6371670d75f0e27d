export { cacheDirectory } from './cache.ts'
export { CgroupTree } from './cgroup/cgroup.ts'
export { missingControllers } from './cgroup/layout.ts'
export { type CgroupMounts, cgroupMounts } from './cgroup/mounts.ts'
export { gvisorDriver } from './driver/gvisor/gvisor.ts'
export type { GvisorConfig } from './driver/gvisor/host.ts'
export { bootstrapDirectory, hostAptOptions } from './images/bootstrap.ts'
export { type PulledExt4, pullToExt4 } from './images/pull-ext4.ts'
export { defaultFileName } from './images/reference.ts'
export { dockerConfigFile } from './images/registry/credentials.ts'
export { Scratch } from './images/scratch.ts'
export type { SourceSettings } from './images/source-policy.ts'
export { type ImageStore, openImageStore } from './images/store.ts'
export { openLocalNode } from './local-node.ts'
export { protectFromOom } from './oom.ts'
export { BASE_IMAGE, BASE_TEMPLATE, baseImageFile, baseImageStep } from './setup/base-image.ts'
export { command, firstLine } from './setup/command.ts'
export { type ForeignPackages, npmPackages, pythonPackages } from './setup/foreign.ts'
export { GO_TOOLCHAIN, presentGo } from './setup/go.ts'
export { ensureGuest, guestBuild } from './setup/guest.ts'
export { withLock } from './setup/lock.ts'
export {
  locate,
  packagesStep,
  type Requirement,
  RUNTIME_REQUIREMENTS,
  TEST_REQUIREMENTS,
} from './setup/packages.ts'
export { stepReport } from './setup/report.ts'
export { ensureRunsc, runscBuild } from './setup/runsc.ts'
export { ensureRuntime, runtimeSteps } from './setup/runtime.ts'
export { cargo, presentRust, RUST, rustStep } from './setup/rust.ts'
export { type Report, runSteps, type Step, type StepEvent } from './setup/step.ts'
export { versionIn } from './setup/version.ts'
