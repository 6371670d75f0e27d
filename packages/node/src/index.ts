export { cacheDirectory } from './cache.ts'
export { ensureRunsc, runscBuild } from './setup/runsc.ts'
