import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { test } from 'node:test'
import { linkPromisedPrograms } from '../setup/programs.ts'

test('tests find the programs that set-up promises, and no others that the machine has', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'programs-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  const links = await mkdtemp(join(directory, 'links-'))
  const path = process.env.PATH
  t.after(() => {
    process.env.PATH = path
  })
  await writeFile(join(directory, 'icebox-test-program'), '', { mode: 0o755 })
  process.env.PATH = [directory, path].join(delimiter)
  await linkPromisedPrograms(links, t.signal)
  const names = await readdir(links)
  // Of an essential package, an alternative, of a requirement, of what one depends on, and what starts Icebox.
  for (const name of ['sh', 'awk', 'mmdebstrap', 'setcap', 'openssl', 'node', 'npm'])
    assert.ok(names.includes(name), name)
  assert.ok(!names.includes('icebox-test-program'))
})
