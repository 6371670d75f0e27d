import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { type TestContext, test } from 'node:test'
import { isError } from '@icebox/model'
import { openSqliteStore } from '../index.ts'
import { LOG_LIMIT } from './change-log.ts'

const INDEX = new URL('../index.ts', import.meta.url).href
const SPEC = { image: 'x', size: { cpu: 1, memoryMiB: 512, diskMiB: 1024 }, env: {}, hidden: false }
const STATUS = { state: 'creating', lastTransitionAt: '2026-01-02T03:04:05.678Z' } as const
const CONTENT = { spec: SPEC, status: STATUS }

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'icebox-store-'))
  t.after(() => rm(path, { recursive: true }))
  return path
}

/** Runs a module in a process of its own, which the end of the test kills. */
function run(t: TestContext, source: string): ChildProcess & { lines: AsyncIterableIterator<string> } {
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', source], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  t.after(() => child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return Object.assign(child, { lines })
}

test('keeps everything over a close, watches too', async (t) => {
  const file = join(await directory(t), 'icebox.db')
  const first = await openSqliteStore(file)
  const { resourceVersion } = await first.list('Template', 'default', {}, t.signal)
  const one = await first.create('Template', { namespace: 'default', name: 'one' }, CONTENT, t.signal)
  await first.close()
  await assert.rejects(first.get('Template', one.metadata, t.signal), (thrown) => isError(thrown, 'Unavailable'))

  const second = await openSqliteStore(file)
  t.after(() => second.close())
  assert.deepEqual(await second.get('Template', one.metadata, t.signal), one)
  for await (const event of second.watch('Template', 'default', resourceVersion, t.signal)) {
    assert.deepEqual(event, { type: 'put', resource: one })
    break
  }
})

test('is readable by its owner alone', async (t) => {
  const file = join(await directory(t), 'icebox.db')
  const store = await openSqliteStore(file)
  await store.create('Template', { namespace: 'default', name: 'one' }, CONTENT, t.signal)
  for (const each of [file, `${file}-wal`]) assert.equal(statSync(each).mode & 0o777, 0o600, each)
  await store.close()
})

test('has every acknowledged write after kill -9, again and again', async (t) => {
  const file = join(await directory(t), 'icebox.db')
  let expected = 0
  for (let round = 0; round < 5; round++) {
    const child = run(
      t,
      `import { openSqliteStore } from ${JSON.stringify(INDEX)}
       const store = await openSqliteStore(${JSON.stringify(file)})
       const signal = new AbortController().signal
       const write = async (lane) => {
         for (let i = 0; ; i++) {
           const name = 'r${round}-' + lane + '-' + i
           await store.create('Template', { namespace: 'default', name }, ${JSON.stringify(CONTENT)}, signal)
           console.log(name)
         }
       }
       await Promise.all([write(0), write(1), write(2)])`,
    )
    const acknowledged: string[] = []
    for await (const line of child.lines) {
      acknowledged.push(line)
      if (acknowledged.length === 50) child.kill('SIGKILL')
    }
    assert.ok(acknowledged.length >= 50)
    const store = await openSqliteStore(file)
    const { items } = await store.list('Template', 'default', {}, t.signal)
    const names = new Set(items.map((item) => item.metadata.name))
    for (const name of acknowledged) assert.ok(names.has(name), name)
    // Each of the three lanes may have written one that it could not tell of.
    expected += acknowledged.length
    assert.ok(names.size >= expected && names.size <= expected + 3 * (round + 1), `${names.size} of ${expected}`)
    expected = names.size
    await store.close()
  }
})

test('is one process’s alone; kill -9 of that process frees it', async (t) => {
  const file = join(await directory(t), 'icebox.db')
  const child = run(
    t,
    `import { openSqliteStore } from ${JSON.stringify(INDEX)}
     await openSqliteStore(${JSON.stringify(file)}); console.log('open'); process.stdin.resume()`,
  )
  await child.lines.next()
  await assert.rejects(openSqliteStore(file), (thrown) => isError(thrown, 'Conflict'))
  child.kill('SIGKILL')
  await once(child, 'exit')
  const store = await openSqliteStore(file)
  await assert.rejects(openSqliteStore(file), (thrown) => isError(thrown, 'Conflict'))
  await store.create('Template', { namespace: 'default', name: 'one' }, CONTENT, t.signal)
  await store.close()
})

test('refuses a newer database, another program’s and a damaged one, and leaves them as they are', async (t) => {
  const path = await directory(t)
  const newer = join(path, 'newer.db')
  await (await openSqliteStore(newer)).close()
  using database = new DatabaseSync(newer)
  database.exec('PRAGMA user_version = 7')
  database.close()
  const foreign = join(path, 'foreign.db')
  using other = new DatabaseSync(foreign)
  other.exec('CREATE TABLE things (a)')
  other.close()
  const damaged = join(path, 'damaged.db')
  writeFileSync(damaged, 'not a database at all, but long enough to look like one '.repeat(100))

  for (const [file, code, message] of [
    [newer, 'NotImplemented', /schema version 7.*up to 1.*newer Icebox/],
    [foreign, 'InvalidArgument', /another program/],
    [damaged, 'Internal', /not a SQLite database/],
  ] as const) {
    const before = readFileSync(file)
    await assert.rejects(openSqliteStore(file), (thrown) => {
      assert.ok(isError(thrown, code), String(thrown))
      assert.match(thrown.message, message)
      return true
    })
    assert.deepEqual(readFileSync(file), before)
  }
})

test('says which resource does not fit its schema, instead of a wrong answer', async (t) => {
  const file = join(await directory(t), 'icebox.db')
  const first = await openSqliteStore(file)
  const one = await first.create('Template', { namespace: 'default', name: 'one' }, CONTENT, t.signal)
  await first.close()
  using database = new DatabaseSync(file)
  database.exec(`UPDATE resources SET spec = '{"image": 5}'`)
  database.close()
  const second = await openSqliteStore(file)
  t.after(() => second.close())
  await assert.rejects(second.get('Template', one.metadata, t.signal), (thrown) => {
    assert.ok(isError(thrown, 'Internal'))
    assert.match(thrown.message, /Template.*"one"/)
    return true
  })
})

test('expires a watch that fell behind the bounded log, and bounds it', async (t) => {
  const file = join(await directory(t), 'icebox.db')
  const store = await openSqliteStore(file)
  const { resourceVersion } = await store.list('Template', 'default', {}, t.signal)
  const slow = store.watch('Template', 'default', resourceVersion, t.signal)[Symbol.asyncIterator]()
  const lanes = Array.from({ length: 64 }, async (_, lane) => {
    let one = await store.create('Template', { namespace: 'default', name: `t${lane}` }, CONTENT, t.signal)
    if (lane === 0) assert.equal((await slow.next()).value?.resource.metadata.uid, one.metadata.uid)
    for (let i = 0; i <= LOG_LIMIT / 64; i++)
      one = await store.updateStatus('Template', one, { ...STATUS, bootMs: i }, t.signal)
  })
  await Promise.all(lanes)
  const expired = (thrown: unknown) => isError(thrown, 'WatchExpired')
  await assert.rejects(async () => {
    for await (const _ of { [Symbol.asyncIterator]: () => slow });
  }, expired)
  const late = store.watch('Template', 'default', resourceVersion, t.signal)[Symbol.asyncIterator]()
  await assert.rejects(Promise.resolve(late.next()), expired)
  const future = store.watch('Template', 'default', '999999999', t.signal)[Symbol.asyncIterator]()
  await assert.rejects(Promise.resolve(future.next()), expired)
  const garbage = store.watch('Template', 'default', 'x', t.signal)[Symbol.asyncIterator]()
  await assert.rejects(Promise.resolve(garbage.next()), (thrown) => isError(thrown, 'InvalidArgument'))
  await store.close()
  using database = new DatabaseSync(file)
  assert.equal(database.prepare('SELECT count(*) AS n FROM changes').get()?.n, LOG_LIMIT)
})

test('a watch of a kind that is quiet outlasts any number of changes of another', async (t) => {
  const store = await openSqliteStore(join(await directory(t), 'icebox.db'))
  t.after(() => store.close())
  const { resourceVersion } = await store.list('Snapshot', undefined, {}, t.signal)
  let one = await store.create('Template', { namespace: 'default', name: 'one' }, CONTENT, t.signal)
  for (let i = 0; i <= LOG_LIMIT; i++)
    one = await store.updateStatus('Template', one, { ...STATUS, bootMs: i }, t.signal)
  const spec = {
    kind: 'memory' as const,
    sandbox: 's',
    execution: 'e',
    imageName: 'i',
    size: SPEC.size,
    env: {},
    purpose: 'user' as const,
  }
  const written = await store.create(
    'Snapshot',
    { namespace: 'default', name: 'n' },
    { spec, status: STATUS },
    t.signal,
  )
  for await (const { resource } of store.watch('Snapshot', undefined, resourceVersion, t.signal)) {
    assert.deepEqual(resource, written)
    break
  }
})

test('says NoSpace on a full disk, changes nothing and goes on once there is room', async (t) => {
  const path = await directory(t)
  const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'icebox-test', path])
  assert.equal(mount.status, 0, String(mount.stderr))
  try {
    await fillUp(join(path, 'icebox.db'), path, t.signal)
  } finally {
    spawnSync('umount', ['--lazy', path])
  }
})

async function fillUp(file: string, mountPoint: string, signal: AbortSignal): Promise<void> {
  const store = await openSqliteStore(file)
  const big = { ...SPEC, env: { FILL: 'x'.repeat(20_000) } }
  const names: string[] = []
  const fill = async () => {
    for (let i = 0; i < 100; i++) {
      await store.create('Template', { namespace: 'default', name: `t${i}` }, { ...CONTENT, spec: big }, signal)
      names.push(`t${i}`)
    }
  }
  await assert.rejects(fill(), (thrown) => {
    assert.ok(isError(thrown, 'NoSpace'), String(thrown))
    return true
  })
  const list = await store.list('Template', 'default', {}, signal)
  assert.deepEqual(list.items.map((item) => item.metadata.name).sort(), names.sort())
  assert.equal(spawnSync('mount', ['-o', 'remount,size=4m', mountPoint]).status, 0)
  await store.create('Template', { namespace: 'default', name: 'last' }, CONTENT, signal)
  await store.close()
}

test('on a full disk a write changes nothing and says so; with room it succeeds, as it does at once where room can be made', async (t) => {
  const path = await mkdtemp(join(tmpdir(), 'icebox-store-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'icebox-test', path])
  t.after(async () => {
    execFileSync('umount', ['--lazy', path])
    await rm(path, { recursive: true })
  })
  let spare = true
  const makeRoom = () => {
    const had = spare
    spare = false
    if (had) rmSync(join(path, 'spare'))
    return had
  }
  writeFileSync(join(path, 'spare'), Buffer.alloc(2 ** 20))
  const store = await openSqliteStore(join(path, 'icebox.db'), { makeRoom })
  t.after(() => store.close())
  const env = { LARGE: 'x'.repeat(30_000) }
  const make = (name: string) =>
    store.create(
      'Template',
      { namespace: 'default', name },
      { spec: { ...SPEC, env }, status: STATUS },
      AbortSignal.timeout(10_000),
    )
  const fill = () => {
    for (let size = 2 ** 16; size >= 1; size = Math.floor(size / 2))
      for (;;)
        try {
          writeFileSync(join(path, `others-${size}-${Math.random()}`), Buffer.alloc(size))
        } catch {
          break
        }
  }
  fill()
  let made = 0
  const full = async () => {
    try {
      for (;;) {
        await make(`t-${made}`)
        made += 1
      }
    } catch (thrown) {
      return thrown
    }
  }
  const refused = await full()
  assert.ok(isError(refused, 'NoSpace'), String(refused))
  assert.doesNotMatch(`${refused.message} ${refused.remedy}`, /delete sandboxes/)
  assert.ok(!spare && made > 0, 'the room that could be made was not used')
  const names = async () =>
    (await store.list('Template', 'default', {}, t.signal)).items.map(({ metadata }) => metadata.name)
  assert.equal((await names()).length, made)
  for (const file of readdirSync(path)) if (file.startsWith('others-')) rmSync(join(path, file))
  await make('after')
  assert.equal((await names()).length, made + 1)
})
