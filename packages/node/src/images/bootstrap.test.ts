import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { bootstrapFile, bootstrapTar, trimBootstraps } from './bootstrap.ts'
import { quiet, soon, temporaryDirectory } from './fixture.ts'

test('of the bootstraps that are kept, those go first that have not been used for longest', async () => {
  const cache = temporaryDirectory()
  const directory = join(cache, 'bootstrap')
  mkdirSync(directory)
  const packages = ['a', 'b', 'c', 'd']
  for (const [i, name] of packages.entries()) {
    const file = bootstrapFile('bookworm', [name], cache)
    writeFileSync(file, '')
    truncateSync(file, 1000)
    utimesSync(file, 1_000_000 + i, 1_000_000)
  }
  writeFileSync(join(directory, 'x.lock'), '')
  // Asked for again, the oldest is the newest.
  await bootstrapTar('bookworm', ['a'], cache, quiet, soon())
  await trimBootstraps(cache, 2500)
  const left = () => readdirSync(directory).map((name) => /\+(.)\.tar$/.exec(name)?.[1] ?? name)
  assert.deepEqual(left().toSorted(), ['a', 'd', 'x.lock'])
  await trimBootstraps(cache, 1)
  assert.deepEqual(left().toSorted(), ['a', 'x.lock'])
})
