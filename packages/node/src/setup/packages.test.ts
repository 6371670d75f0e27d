import assert from 'node:assert/strict'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { locate, missingPackages, packagesStep, RUNTIME_REQUIREMENTS, TEST_REQUIREMENTS } from './packages.ts'

const signal = new AbortController().signal

test('programs are found on PATH when they can be run, files where they are', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'packages-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  const path = process.env.PATH
  t.after(() => {
    process.env.PATH = path
  })
  process.env.PATH = `${directory}:${path}`
  const program = join(directory, 'icebox-test-program')
  await writeFile(program, '')
  await chmod(program, 0o644)
  assert.equal(await locate('icebox-test-program'), undefined)
  await chmod(program, 0o755)
  assert.equal(await locate('icebox-test-program'), program)
  assert.equal(await locate(program), program)
  assert.equal(await locate(join(directory, 'absent')), undefined)
})

test('what is missing is named by its package, once', async () => {
  const missing = await missingPackages([
    { needs: 'sh', package: 'dash', why: 'is there' },
    { needs: 'icebox-absent-1', package: 'absent', why: 'is not' },
    { needs: '/icebox/absent/2', package: 'absent', why: 'is not' },
  ])
  assert.deepEqual(missing, ['absent'])
})

test('after set-up all that is required is there, and the step has nothing to do', async () => {
  const requirements = [...RUNTIME_REQUIREMENTS, ...TEST_REQUIREMENTS]
  assert.deepEqual(await missingPackages(requirements), [])
  const step = packagesStep('packages', 'tests', requirements)
  assert.equal(await step.isDone(signal), `all ${requirements.length} found`)
})

test('a package that does not bring what it should is a failure', async () => {
  const step = packagesStep('packages', 'tests', [
    { needs: 'icebox-absent', package: 'icebox-absent', why: 'no such package' },
  ])
  assert.equal(await step.isDone(signal), undefined)
  await assert.rejects(
    step.run(() => {}, signal),
    /icebox-absent/,
  )
  assert.match(step.remedy, /apt-get install icebox-absent/)
})
