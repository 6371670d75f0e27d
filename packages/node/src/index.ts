export { cacheDirectory } from './cache.ts'
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
