import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, mkdtemp, readFile, rm, rmdir, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { z } from 'zod'
import { leftBehind, machineState } from '../setup/leftovers.ts'
import { TEST_ARGUMENTS } from '../setup/tests.ts'

const ROOT = join(import.meta.dirname, '..')
const SYSTEM_PATH = '/usr/sbin:/usr/bin:/sbin:/bin'
const run = promisify(execFile)

async function scratch(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'house-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  return directory
}

/** A checkout that has the scripts and the installed packages, and a CLI that says how it was started. */
async function checkout(t: TestContext): Promise<string> {
  const root = await scratch(t)
  for (const path of ['packages/cli/bin', 'setup', 'package-lock.json'])
    await cp(join(ROOT, path), join(root, path), { recursive: true })
  await symlink('packages/cli/bin/icebox', join(root, 'icebox'))
  await symlink(join(ROOT, 'node_modules'), join(root, 'node_modules'))
  await mkdir(join(root, 'packages/cli/src'))
  await writeFile(
    join(root, 'packages/cli/src/main.ts'),
    `const said: object = { version: process.version, cwd: process.cwd(), arguments: process.argv.slice(2) }
     console.log(JSON.stringify(said))
     process.exitCode = 7`,
  )
  return root
}

test('icebox starts its own Node from any directory, also through symbolic links, and passes arguments and status on', async (t) => {
  const root = await checkout(t)
  const elsewhere = await scratch(t)
  await symlink(join(root, 'icebox'), join(elsewhere, 'first'))
  await symlink('first', join(elsewhere, 'ice'))
  for (const program of [join(root, 'icebox'), join(root, 'packages/cli/bin/icebox'), './ice']) {
    const failure: { code?: number; stdout?: string } = await run(program, ['a b', '--', '*', ''], {
      cwd: elsewhere,
      env: { PATH: SYSTEM_PATH },
    }).then(
      () => ({}),
      (thrown) => thrown,
    )
    assert.equal(failure.code, 7, program)
    assert.deepEqual(JSON.parse(failure.stdout ?? ''), {
      version: process.version,
      cwd: elsewhere,
      arguments: ['a b', '--', '*', ''],
    })
  }
})

test('npx icebox is the same program', async () => {
  const target = await run('readlink', ['-f', join(ROOT, 'node_modules/.bin/icebox')])
  assert.equal(target.stdout.trim(), join(ROOT, 'packages/cli/bin/icebox'))
  assert.equal((await run('readlink', ['-f', join(ROOT, 'icebox')])).stdout.trim(), target.stdout.trim())
})

const Lock = z.object({
  packages: z.record(
    z.string(),
    z.looseObject({
      version: z.string().optional(),
      integrity: z.string().optional(),
      resolved: z.string().optional(),
      link: z.boolean().optional(),
      optional: z.boolean().optional(),
      optionalDependencies: z.record(z.string(), z.string()).optional(),
    }),
  ),
})
const readLock = async () => Lock.parse(JSON.parse(await readFile(join(ROOT, 'package-lock.json'), 'utf8')))

test('the lock file is complete, checked by digests, and names no registry', async () => {
  const { packages } = await readLock()
  for (const [path, entry] of Object.entries(packages)) {
    if (!path.includes('node_modules/')) continue
    if (!entry.link) {
      assert.match(entry.integrity ?? '', /^sha512-/, path)
      assert.equal(entry.resolved, undefined, path)
    }
    for (const name of Object.keys(entry.optionalDependencies ?? {}))
      assert.ok(packages[`${path}/node_modules/${name}`] ?? packages[`node_modules/${name}`], `${path} wants ${name}`)
  }
})

test('set-up sees when node_modules is not what the lock file says', async (t) => {
  const root = await scratch(t)
  await mkdir(join(root, 'node_modules/.bin'), { recursive: true })
  await cp(join(ROOT, 'setup/installed.ts'), join(root, 'setup/installed.ts'))
  await writeFile(join(root, 'package.json'), '{ "type": "module" }')
  const a = { version: '1.0.0', integrity: 'sha512-a' }
  const other = { version: '1.0.0', integrity: 'sha512-other', optional: true }
  const link = { resolved: 'packages/x', link: true }
  const complete = { 'node_modules/a': a, 'node_modules/x': link }
  const installed = async (wanted: object, present: object, bin = true) => {
    await writeFile(
      join(root, 'package-lock.json'),
      JSON.stringify({ packages: { '': {}, 'packages/x': {}, ...wanted } }),
    )
    await writeFile(join(root, 'node_modules/.package-lock.json'), JSON.stringify({ packages: present }))
    await rm(join(root, 'node_modules/.bin/icebox'), { force: true })
    if (bin) await writeFile(join(root, 'node_modules/.bin/icebox'), '')
    return run(process.execPath, [join(root, 'setup/installed.ts')]).then(
      () => true,
      () => false,
    )
  }
  assert.equal(await installed(complete, complete), true)
  assert.equal(await installed({ ...complete, 'node_modules/other-platform': other }, complete), true)
  assert.equal(await installed(complete, { ...complete, 'node_modules/a': { ...a, version: '0.9.0' } }), false)
  assert.equal(await installed(complete, { ...complete, 'node_modules/a': { ...a, integrity: 'sha512-b' } }), false)
  assert.equal(await installed(complete, { 'node_modules/a': a }), false)
  assert.equal(await installed(complete, { ...complete, 'node_modules/removed': a }), false)
  assert.equal(await installed(complete, complete, false), false)
})

test('every package exports one file and is of this release', async () => {
  const { packages } = await readLock()
  const ours = Object.keys(packages).filter((path) => path.startsWith('packages/'))
  assert.ok(ours.length >= 8, ours.join())
  const Manifest = z.looseObject({
    name: z.string(),
    version: z.literal('0.1.0'),
    license: z.literal('Apache-2.0'),
    type: z.literal('module'),
    exports: z.literal('./src/index.ts'),
  })
  for (const path of ours) {
    const manifest = Manifest.parse(JSON.parse(await readFile(join(ROOT, path, 'package.json'), 'utf8')))
    assert.equal(manifest.name, path.replace('packages/', '@icebox/'))
  }
})

test('an unknown command says which there are', async () => {
  for (const args of [[], ['tset'], ['constructor']]) {
    const failure: { code?: number; stderr?: string } = await run('sh', ['setup/enter', ...args], { cwd: ROOT }).then(
      () => ({}),
      (thrown) => thrown,
    )
    assert.equal(failure.code, 2)
    assert.match(failure.stderr ?? '', /npm run quickstart/)
  }
})

test('a test file that does not end fails and says what it waits for; others are not touched', async (t) => {
  const directory = await scratch(t)
  const file = async (name: string, text: string) => {
    const path = join(directory, `${name}.test.ts`)
    await writeFile(path, `import { after, test } from 'node:test'\n${text}\n`)
    return path
  }
  const files = [
    await file('good', "test('good', async () => {}); after(async () => {})"),
    await file('lingers', "test('good', () => {}); setInterval(() => {}, 1000)"),
    await file('hangs', "test('never', () => new Promise(() => setInterval(() => {}, 1000)))"),
  ]
  const { NODE_TEST_CONTEXT: _, ...env } = process.env
  const failure: { code?: number; stdout?: string } = await run(process.execPath, [...TEST_ARGUMENTS, ...files], {
    env: { ...env, ICEBOX_TEST_FILE_DEADLINE_MS: '4000', ICEBOX_TEST_ENDING_DEADLINE_MS: '1000' },
  }).then(
    () => ({}),
    (thrown) => thrown,
  )
  assert.equal(failure.code, 1)
  assert.match(failure.stdout ?? '', /lingers\.test\.ts: all tests are done, but .* it waits for: .*Timeout/)
  assert.match(failure.stdout ?? '', /hangs\.test\.ts: not done after 4 s; it waits for: .*Timeout/)
  assert.match(failure.stdout ?? '', /ℹ pass 2\nℹ fail 2\n/)
})

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}

test('what a test run leaves on the machine is found: process, mount, cgroup, run directory, file', async (t) => {
  const directory = await scratch(t)
  const signal = AbortSignal.timeout(60_000)
  const before = await machineState(directory)
  const mountinfo = await readFile('/proc/self/mountinfo', 'utf8')
  const hierarchy = / - cgroup2? /.test(mountinfo)
    ? mountinfo
        .split('\n')
        .find((line) => / - cgroup2? /.test(line))
        ?.split(' ')[4]
    : undefined
  assert.ok(hierarchy, 'no cgroup hierarchy is mounted')
  const id = `${process.pid}-left-behind`
  const group = join(hierarchy, 'icebox', id)
  const runDirectory = join('/run/icebox', id)
  const mountPoint = join(directory, 'mounted')

  await mkdir(mountPoint)
  await mkdir(join(runDirectory, 'machines'), { recursive: true })
  await writeFile(join(runDirectory, 'machines', 'in'), '')
  t.after(() => rm(runDirectory, { recursive: true, force: true }))
  await mkdir(group, { recursive: true })
  t.after(async () => {
    await rmdir(group).catch(() => {})
    await rmdir(dirname(group)).catch(() => {})
  })
  await run('mount', ['-t', 'tmpfs', 'tmpfs', mountPoint])
  t.after(() => run('umount', [mountPoint]).catch(() => {}))
  const child = spawn('sleep', ['600'], { argv0: 'runsc-sandbox', stdio: 'ignore' })
  t.after(() => ended(child))
  await once(child, 'spawn')

  const found = [...(await machineState(directory))].filter((line) => !before.has(line))
  for (const expected of [
    `process ${child.pid}: runsc-sandbox 600`,
    `mount ${mountPoint}`,
    `cgroup /icebox/${id}`,
    `run directory ${runDirectory}`,
    `file ${mountPoint}`,
  ])
    assert.ok(found.includes(expected), `${expected} is not in:\n${found.join('\n')}`)

  await ended(child)
  await run('umount', [mountPoint])
  await rmdir(group)
  await rm(join(runDirectory, 'machines', 'in'))
  // Other sandboxes may come and go meanwhile; of ours only the file is left, and that is not taken for gone.
  const left = await leftBehind(new Set([...before, ...(await machineState('/nonexistent'))]), directory, 300, signal)
  assert.ok(left.includes(`file ${mountPoint}`), left.join('\n'))
  assert.ok(!left.some((line) => line.includes(id) || line.startsWith(`process ${child.pid}:`)), left.join('\n'))
})
