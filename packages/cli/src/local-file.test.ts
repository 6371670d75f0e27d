import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { UsageError } from './command.ts'
import { checkInput, checkOutput } from './local-file.ts'

test('files are looked at before anything is done with them', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'icebox-local-file-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'file')
  writeFileSync(file, '')
  for (const path of [file, '/dev/null']) await checkInput(path)
  for (const path of [file, join(directory, 'new'), 'new', './-']) await checkOutput(path)
  for (const check of [checkInput, checkOutput]) {
    await assert.rejects(check('-'), UsageError)
    await assert.rejects(check(directory), { code: 'InvalidArgument' })
    await assert.rejects(check(join(directory, 'none/x')), { code: 'NotFound' })
    await assert.rejects(check(join(file, 'x')), { code: 'NotFound' })
  }
  await assert.rejects(checkInput(join(directory, 'new')), { code: 'NotFound' })
})
