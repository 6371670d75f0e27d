import assert from 'node:assert/strict'
import { access, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { command } from './command.ts'
import { type ForeignPackages, npmPackages, pythonPackages } from './foreign.ts'

const soon = () => AbortSignal.timeout(300_000)
const quiet = () => undefined

suite('packages of others', () => {
  let directory: string
  const cache = process.env.ICEBOX_CACHE
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'icebox-foreign-'))
    process.env.ICEBOX_CACHE = join(directory, 'cache')
  })
  after(async () => {
    if (cache === undefined) delete process.env.ICEBOX_CACHE
    else process.env.ICEBOX_CACHE = cache
    await rm(directory, { recursive: true, force: true })
  })

  const install = async ({ step, path }: ForeignPackages) => {
    assert.equal(await step.isDone(soon()), undefined)
    await step.run(quiet, soon())
    assert.equal(await step.isDone(soon()), 'all installed')
    return path(soon())
  }

  test('an environment of Python is made once, works where it is, and another list is another one', async () => {
    const list = join(directory, 'requirements.txt')
    await writeFile(list, '# nothing\n')
    const first = await install(pythonPackages('python', 'test', list))
    const prefix = await command(
      join(first, 'bin/python'),
      ['-c', 'import sys; print(sys.prefix)'],
      { deadlineMs: 60_000 },
      soon(),
    )
    assert.equal(prefix.trim(), first)
    await writeFile(list, 'no-hash-given\n')
    const other = pythonPackages('python', 'test', list)
    assert.notEqual(await other.path(soon()), first)
    await assert.rejects(other.step.run(quiet, soon()), /hash/i)
    await assert.rejects(access(await other.path(soon())))
  })

  test('packages of npm are what the lock file says', async () => {
    const lock = { name: 'x', lockfileVersion: 3, requires: true, packages: { '': { name: 'x' } } }
    await writeFile(join(directory, 'package.json'), '{ "name": "x", "private": true }')
    await writeFile(join(directory, 'package-lock.json'), JSON.stringify(lock))
    const first = await install(npmPackages('npm', 'test', directory))
    assert.ok((await readdir(first)).includes('package.json'))
    await writeFile(join(directory, 'package-lock.json'), 'no lock')
    const other = npmPackages('npm', 'test', directory)
    await assert.rejects(other.step.run(quiet, soon()), /npm ci/)
    await assert.rejects(access(await other.path(soon())))
  })
})
