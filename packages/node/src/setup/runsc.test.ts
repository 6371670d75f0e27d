import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cacheDirectory } from '../cache.ts'
import { firstLine } from './command.ts'
import { ensureRunsc, runscBuild, runscStep } from './runsc.ts'

test('the pinned runsc is in the cache and says its version', async () => {
  const signal = AbortSignal.timeout(1_800_000)
  const build = await runscBuild()
  assert.match(build.version, /^v0\.0\.0-\d{14}-[0-9a-f]{12}$/)
  assert.ok(build.path.startsWith(`${cacheDirectory()}/runsc-${build.version}-`))
  const paths = await Promise.all([ensureRunsc(signal), ensureRunsc(signal)])
  assert.deepEqual(paths, [build.path, build.path])
  assert.equal(await firstLine(build.path, ['--version'], signal), `runsc version ${build.version}`)
  assert.equal(await runscStep.isDone(signal), build.version)
})
