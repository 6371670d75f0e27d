import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, rmdir, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { isError } from '@icebox/model'
import {
  type DataDirectory,
  defaultDataDirectory,
  openDataDirectory,
  readKey,
  runDirectoryOf,
} from './data-directory.ts'

const MODULE = new URL('./data-directory.ts', import.meta.url).href
const permissions = async (path: string) => (await stat(path)).mode & 0o7777

async function scratch(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'icebox-data-'))
  t.after(() => rm(path, { recursive: true }))
  return path
}

async function opened(t: TestContext, path: string): Promise<DataDirectory> {
  const data = await openDataDirectory(path)
  t.after(async () => {
    await data.close().catch(() => {})
    await rm(data.run, { recursive: true, force: true })
  })
  return data
}

test('makes the layout, for its owner alone', async (t) => {
  const data = await opened(t, join(await scratch(t), 'deep', 'data'))
  assert.deepEqual((await readdir(data.path)).sort(), [
    'blobs',
    'bundles',
    'events',
    'images',
    'lock',
    'logs',
    'snapshots',
    'tmp',
  ])
  const { path: whole, images, blobs, snapshots, bundles, events, logs, tmp, run } = data
  for (const path of [whole, images, blobs, snapshots, bundles, events, logs, tmp, run])
    assert.equal(await permissions(path), 0o700, path)
  assert.equal(await permissions(join(data.path, 'lock')), 0o600)
  assert.match(data.run, /^\/run\/icebox\/[0-9a-f]{16}$/)
  assert.equal(data.run, runDirectoryOf(data.path))
  assert.equal(data.database, join(data.path, 'icebox.db'))
})

test('is one directory by whatever path', async (t) => {
  const path = await scratch(t)
  const first = await opened(t, join(path, 'data'))
  await symlink(first.path, join(path, 'link'))
  await assert.rejects(openDataDirectory(join(path, 'link')), (thrown) => isError(thrown, 'Conflict'))
  await first.close()
  const second = await opened(t, join(path, 'link'))
  assert.equal(second.path, first.path)
  assert.equal(second.run, first.run)
})

test('names the process that has it open; kill -9 of that frees it, whatever children it left', async (t) => {
  const path = join(await scratch(t), 'data')
  const source = `import { spawn } from 'node:child_process'
    import { openDataDirectory } from ${JSON.stringify(MODULE)}
    await openDataDirectory(${JSON.stringify(path)})
    const child = spawn('sleep', ['600'], { detached: true, stdio: 'ignore' })
    child.once('spawn', () => console.log(child.pid))
    setInterval(() => {}, 1000)`
  const holder = spawn(process.execPath, ['--input-type=module-typescript', '-e', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => holder.kill('SIGKILL'))
  const [line] = await once(holder.stdout, 'data')
  const sleeper = Number(String(line))
  t.after(() => process.kill(sleeper, 'SIGKILL'))

  await assert.rejects(openDataDirectory(path), (thrown) => {
    assert.ok(isError(thrown, 'Conflict'))
    assert.match(thrown.message, new RegExp(`process ${holder.pid}$`))
    assert.equal(thrown.details.pid, holder.pid)
    return true
  })
  holder.kill('SIGKILL')
  await once(holder, 'exit')
  const data = await opened(t, path)
  assert.equal(await readFile(join(data.path, 'lock'), 'utf8'), `${process.pid}\n`)
})

test('repairs permissions', async (t) => {
  const path = join(await scratch(t), 'data')
  const first = await opened(t, path)
  await first.readOrCreateKey()
  // Something still runs: else the run directory goes with the server.
  await mkdir(join(first.run, 'machines'))
  await first.close()
  for (const each of [first.path, first.snapshots, first.run]) await chmod(each, 0o777)
  await chmod(join(path, 'key'), 0o644)
  const second = await opened(t, path)
  await second.readOrCreateKey()
  for (const each of [first.path, first.snapshots, first.run]) assert.equal(await permissions(each), 0o700)
  assert.equal(await permissions(join(path, 'key')), 0o600)
  await rmdir(join(second.run, 'machines'))
  await second.close()
  await assert.rejects(stat(second.run), { code: 'ENOENT' })
})

test('refuses a directory of another user, one with other things in it and a file', async (t) => {
  const path = await scratch(t)
  const refused = (directory: string, message: RegExp) =>
    assert.rejects(openDataDirectory(directory), (thrown) => {
      assert.ok(isError(thrown, 'InvalidArgument'), String(thrown))
      assert.match(thrown.message, message)
      return true
    })
  await mkdir(join(path, 'theirs'))
  await chown(join(path, 'theirs'), 65534, 65534)
  await refused(join(path, 'theirs'), /belongs to user 65534/)

  await mkdir(join(path, 'home'))
  await chmod(join(path, 'home'), 0o755)
  await writeFile(join(path, 'home', 'letter'), 'dear')
  await refused(join(path, 'home'), /not empty/)
  assert.equal(await permissions(join(path, 'home')), 0o755)
  assert.deepEqual(await readdir(join(path, 'home')), ['letter'])

  await writeFile(join(path, 'file'), '')
  await refused(join(path, 'file'), /cannot be/)
})

test('begins with an empty tmp/', async (t) => {
  const first = await opened(t, join(await scratch(t), 'data'))
  await mkdir(join(first.tmp, 'export-1', 'deep'), { recursive: true })
  await writeFile(join(first.tmp, 'export-1', 'deep', 'file'), 'x')
  await writeFile(join(first.tmp, 'key'), 'half a k')
  await first.close()
  const second = await opened(t, first.path)
  assert.deepEqual(await readdir(second.tmp), [])
  assert.match(await second.readOrCreateKey(), /^e2b_/)
})

test('takes an empty mount point', async (t) => {
  const path = await scratch(t)
  await mkdir(join(path, 'lost+found'))
  await opened(t, path)
})

test('makes the key once and reads it ever after', async (t) => {
  const data = await opened(t, await scratch(t))
  assert.equal(await readKey(data.path), undefined)
  const key = await data.readOrCreateKey()
  assert.match(key, /^e2b_[0-9a-f]{40}$/)
  assert.equal(await data.readOrCreateKey(), key)
  assert.equal(await readKey(data.path), key)
  assert.equal(await permissions(join(data.path, 'key')), 0o600)
  assert.deepEqual(await readdir(data.tmp), [])
  await writeFile(join(data.path, 'key'), 'hunter2')
  await assert.rejects(data.readOrCreateKey(), (thrown) => {
    assert.ok(isError(thrown, 'InvalidArgument'))
    assert.doesNotMatch(thrown.message, /hunter2/)
    return true
  })
})

test('the default follows ICEBOX_DATA, then the user', () => {
  assert.equal(defaultDataDirectory({ ICEBOX_DATA: '/srv/ice' }), '/srv/ice')
  assert.equal(defaultDataDirectory({}), '/var/lib/icebox')
})
