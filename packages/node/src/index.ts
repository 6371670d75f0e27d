export { cacheDirectory } from './cache.ts'
export { missingControllers } from './cgroup/layout.ts'
export { type CgroupMounts, cgroupMounts } from './cgroup/mounts.ts'
export { type PulledExt4, pullToExt4 } from './images/pull-ext4.ts'
export { defaultFileName } from './images/reference.ts'
export { type ImageStore, openImageStore } from './images/store.ts'
export {
  aptInstall,
  locate,
  packagesStep,
  type Requirement,
  RUNTIME_REQUIREMENTS,
  TEST_REQUIREMENTS,
} from './setup/packages.ts'
export { type Output, stepReport } from './setup/report.ts'
export { ensureRunsc, type RunscBuild, runscBuild } from './setup/runsc.ts'
export { runtimeSteps } from './setup/runtime.ts'
export { RUST_MINIMUM, rustStep } from './setup/rust.ts'
export { type Report, runSteps, type Step, type StepEvent } from './setup/step.ts'
