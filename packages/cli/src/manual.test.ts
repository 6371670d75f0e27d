import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { manual, PAGE } from './manual.ts'

test('docs/reference/cli.md says what the commands take', async () => {
  assert.equal(await readFile(PAGE, 'utf8'), await manual(), 'write it anew: node packages/cli/src/manual.ts')
})
