import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { promisify, stripVTControlCharacters } from 'node:util'
import { RUNTIME_REQUIREMENTS } from '@icebox/node'
import { diagnose } from './diagnose.ts'
import { Diagnosis } from './diagnosis.ts'
import { fileSystemOf } from './storage.ts'
import { diagnosisText } from './text.ts'

const minute = () => AbortSignal.timeout(60_000)

async function scratch(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'doctor-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  return directory
}

/** A diagnosis made by another process, in another environment. */
async function diagnosedIn(env: Record<string, string>, directory: string): Promise<Diagnosis> {
  const script = `import { diagnose } from ${JSON.stringify(new URL('./diagnose.ts', import.meta.url).href)}
    process.stdout.write(JSON.stringify(await diagnose(AbortSignal.timeout(60_000), ${JSON.stringify(directory)})))`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
    env: { ...process.env, ...env },
  })
  return Diagnosis.parse(JSON.parse(stdout))
}

const found = (diagnosis: Diagnosis, id: string) => {
  const check = diagnosis.checks.find((each) => each.id === id)
  assert.ok(check, `${id} is not in the diagnosis`)
  return check
}

test('after set-up nothing required is missing, and gVisor would run sandboxes', async (t) => {
  const diagnosis = await diagnose(minute(), await scratch(t))
  const missing = diagnosis.checks.filter((check) => check.status === 'missing')
  assert.deepEqual(missing, [])
  assert.equal(diagnosis.ok, true)
  assert.equal(diagnosis.driver.chosen, 'gvisor')
  const gvisor = diagnosis.driver.candidates.find((candidate) => candidate.name === 'gvisor')
  assert.match(gvisor?.digest ?? '', /^sha256:[0-9a-f]{64}$/)
  assert.ok(found(diagnosis, 'runsc').found?.includes(gvisor?.digest ?? '-'))
  for (const { needs } of RUNTIME_REQUIREMENTS)
    assert.ok(
      diagnosis.checks.some((check) => check.found === needs || check.found?.endsWith(`/${needs}`)),
      needs,
    )
  for (const id of ['node', 'npm', 'kernel', 'root', 'memory', 'kvm', 'userfaultfd', 'network-namespaces', 'guest'])
    assert.ok(found(diagnosis, id))
  for (const name of ['cpu', 'memory', 'pids']) assert.equal(found(diagnosis, `cgroup.${name}`).status, 'ok')
})

test('every check has its own id, and whatever is amiss says what to do', async (t) => {
  const diagnosis = await diagnosedIn({ PATH: '/nonexistent', ICEBOX_CACHE: await scratch(t) }, await scratch(t))
  const ids = diagnosis.checks.map((check) => check.id)
  assert.equal(new Set(ids).size, ids.length, ids.join())
  for (const check of diagnosis.checks)
    assert.equal(check.remedy !== undefined, check.status === 'missing' || check.status === 'warning', check.id)
})

test('missing programs are found, with the package to install', async (t) => {
  const diagnosis = await diagnosedIn({ PATH: '/nonexistent' }, await scratch(t))
  assert.equal(diagnosis.ok, false)
  const program = found(diagnosis, 'mmdebstrap')
  assert.deepEqual([program.status, program.required, program.remedy], ['missing', true, 'apt-get install mmdebstrap'])
  // Compilers are not missed as long as what they build is there.
  for (const id of ['go', 'rust']) {
    assert.equal(found(diagnosis, id).required, false)
    assert.notEqual(found(diagnosis, id).status, 'missing')
  }
})

test('without the builds, what builds them is required, and no driver is chosen', async (t) => {
  const diagnosis = await diagnosedIn({ ICEBOX_CACHE: await scratch(t), PATH: '/nonexistent' }, await scratch(t))
  assert.equal(diagnosis.ok, false)
  assert.equal(diagnosis.driver.chosen, null)
  for (const id of ['runsc', 'guest', 'go', 'rust']) {
    const { status, required } = found(diagnosis, id)
    assert.deepEqual([id, status, required], [id, 'missing', true])
  }
})

test('a data directory that cannot be used is missing', async (t) => {
  const directory = await scratch(t)
  const file = join(directory, 'file')
  await writeFile(file, '')
  const diagnosis = await diagnose(minute(), file)
  assert.equal(diagnosis.ok, false)
  assert.equal(found(diagnosis, 'data-directory').status, 'missing')
  const beneath = await diagnose(minute(), join(directory, 'made', 'later'))
  assert.equal(found(beneath, 'data-directory').status, 'ok')
})

test('the text names every check, what is missing, and how to get it', async (t) => {
  const diagnosis = await diagnosedIn({ PATH: '/nonexistent' }, await scratch(t))
  const text = stripVTControlCharacters(diagnosisText(diagnosis))
  for (const { id } of diagnosis.checks) assert.ok(text.includes(` ${id} `), id)
  assert.match(text, /✘ mmdebstrap +missing/)
  assert.match(text, /→ apt-get install mmdebstrap/)
  assert.match(text, /\nMissing: .*mmdebstrap/)
})

test('the file system of a path is that of the longest mount point above it, the last one mounted there', () => {
  const mountinfo = [
    '21 1 8:1 / / rw - ext4 /dev/sda1 rw',
    '22 21 0:5 / /data rw - tmpfs tmpfs rw',
    '23 22 8:2 / /data rw shared:1 - xfs /dev/sdb1 rw',
    '24 21 0:6 / /data/with\\040space rw - btrfs /dev/sdc rw',
    '',
  ].join('\n')
  assert.equal(fileSystemOf('/database', mountinfo), 'ext4')
  assert.equal(fileSystemOf('/data', mountinfo), 'xfs')
  assert.equal(fileSystemOf('/data/deep/er', mountinfo), 'xfs')
  assert.equal(fileSystemOf('/data/with space/x', mountinfo), 'btrfs')
  assert.equal(fileSystemOf('/data', ''), 'unknown')
})
