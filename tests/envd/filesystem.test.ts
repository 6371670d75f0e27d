import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  Code,
  ConnectError,
  type EnvdServer,
  EventType,
  type FilesystemEvent,
  FileType,
  timestampDate,
} from '../../packages/server/src/e2b/envd/testing.ts'
import { as, EnvdSandboxUnderTest } from './testing.ts'

const signal = AbortSignal.timeout(60_000)

const code = (wanted: Code) => (thrown: unknown) => {
  assert.ok(thrown instanceof ConnectError, String(thrown))
  assert.equal(Code[thrown.code], Code[wanted], thrown.message)
  return true
}

describe('files by envd', { timeout: 60_000 }, () => {
  let envd: EnvdSandboxUnderTest
  let client: ReturnType<EnvdServer['filesystem']>
  before(async () => {
    envd = await EnvdSandboxUnderTest.start(signal)
    client = envd.server.filesystem()
  })
  after(() => envd?.stop())

  test('an entry is told whole, in JSON and in binary', async () => {
    await envd.shell(
      `cd /home/user; echo hello > file; chmod 640 file; chown user:user file; touch -d '2024-05-06 07:08:09.5' file
       ln -s file soft; ln -s nowhere dangling; mkdir -m 1777 shared; mkfifo pipe`,
      signal,
    )
    for (const how of [{}, { binary: true }, { http2: true }]) {
      const { entry } = await envd.server.filesystem(how).stat({ path: 'file' })
      assert.deepEqual(
        { ...entry, modifiedTime: entry?.modifiedTime && timestampDate(entry.modifiedTime).toISOString() },
        {
          $typeName: 'filesystem.EntryInfo',
          name: 'file',
          type: FileType.FILE,
          path: '/home/user/file',
          size: 6n,
          mode: 0o640,
          permissions: '-rw-r-----',
          owner: 'user',
          group: 'user',
          modifiedTime: '2024-05-06T07:08:09.500Z',
          metadata: {},
        },
      )
    }
    const { entries } = await client.listDir({ path: '~' })
    const own = entries.filter(({ name }) => !name.startsWith('.'))
    assert.deepEqual(
      own.map(({ name, type, mode, permissions, symlinkTarget }) => [name, type, mode, permissions, symlinkTarget]),
      [
        ['dangling', FileType.UNSPECIFIED, 0, 'Lrwxrwxrwx', 'nowhere'],
        ['file', FileType.FILE, 0o640, '-rw-r-----', undefined],
        ['pipe', FileType.UNSPECIFIED, 0o644, 'prw-r--r--', undefined],
        ['shared', FileType.DIRECTORY, 0o777, 'dtrwxrwxrwx', undefined],
        ['soft', FileType.FILE, 0o640, 'Lrwxrwxrwx', '/home/user/file'],
      ],
    )
    await assert.rejects(client.stat({ path: '/nowhere' }), code(Code.NotFound))
    await assert.rejects(client.stat({ path: '~other/file' }), code(Code.InvalidArgument))
    await assert.rejects(client.stat({ path: '/' }, as('stranger')), code(Code.Unauthenticated))
    assert.equal((await client.stat({ path: '/home/user/sub/../file' })).entry?.path, '/home/user/file')
    assert.equal((await client.stat({ path: '' })).entry?.path, '/home/user')
    assert.equal((await client.stat({ path: '.' }, as('root'))).entry?.path, '/root')
  })

  test('a directory is listed as deep as asked, in the order of a walk', async () => {
    await envd.shell('mkdir -p /tmp/l/a/b /tmp/l/a-b; touch /tmp/l/a/b/deep /tmp/l/a/z; ln -s l /tmp/to-l', signal)
    const names = async (path: string, depth: number) =>
      (await client.listDir({ path, depth })).entries.map((entry) => entry.path)
    assert.deepEqual(await names('/tmp/l', 0), ['/tmp/l/a', '/tmp/l/a-b'])
    assert.deepEqual(await names('/tmp/l', 1), ['/tmp/l/a', '/tmp/l/a-b'])
    assert.deepEqual(await names('/tmp/l/', 3), [
      '/tmp/l/a',
      '/tmp/l/a/b',
      '/tmp/l/a/b/deep',
      '/tmp/l/a/z',
      '/tmp/l/a-b',
    ])
    assert.deepEqual(await names('/tmp/to-l', 1), ['/tmp/to-l/a', '/tmp/to-l/a-b'])
    await assert.rejects(client.listDir({ path: '/tmp/l/a/z' }), code(Code.InvalidArgument))
    await assert.rejects(client.listDir({ path: '/tmp/l/none' }), code(Code.NotFound))
  })

  test('directories are made for the user, entries move and go', async () => {
    const { entry } = await client.makeDir({ path: '/srv/made/deep' })
    assert.deepEqual(
      [entry?.path, entry?.type, entry?.owner, entry?.mode],
      ['/srv/made/deep', FileType.DIRECTORY, 'user', 0o755],
    )
    assert.equal(await envd.shell('stat -c %U /srv /srv/made', signal), 'root\nuser\n')
    await assert.rejects(client.makeDir({ path: '/srv/made/deep' }), code(Code.AlreadyExists))
    await envd.shell('touch /srv/made/file', signal)
    await assert.rejects(client.makeDir({ path: '/srv/made/file' }), code(Code.InvalidArgument))
    const moved = await client.move({ source: '/srv/made/file', destination: '/srv/other/file' })
    assert.deepEqual([moved.entry?.path, moved.entry?.name], ['/srv/other/file', 'file'])
    await assert.rejects(client.move({ source: '/srv/made/file', destination: '/srv/x' }), code(Code.NotFound))
    await client.remove({ path: '/srv/made' })
    await client.remove({ path: '/srv/made' })
    await client.remove({ path: '/srv/other/file' })
    assert.equal(await envd.shell('ls -A /srv/other', signal), '')
  })

  test('a stream of changes starts, names them from its directory, and ends with its client', async () => {
    await envd.shell('mkdir -p /home/user/watched/sub', signal)
    const stop = new AbortController()
    const seen: FilesystemEvent[] = []
    let keepalives = 0
    const started = Promise.withResolvers<void>()
    const watching = (async () => {
      const stream = client.watchDir(
        { path: 'watched', recursive: true, includeEntry: true },
        { signal: stop.signal, headers: { 'keepalive-ping-interval': '0.2' } },
      )
      for await (const { event } of stream) {
        if (event.case === 'start') started.resolve()
        if (event.case === 'keepalive') keepalives++
        if (event.case === 'filesystem') seen.push(event.value)
        if (keepalives > 1 && seen.some(({ name }) => name === 'end')) stop.abort()
      }
    })()
    await started.promise
    await envd.fetch('/files?path=watched/sub/file', {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: 'new',
    })
    await envd.shell('cd /home/user/watched; chmod 600 sub/file; mv sub/file moved; rm moved; touch end', signal)
    await assert.rejects(watching, code(Code.Canceled))
    const told = seen.map(({ name, type, entry }) => `${EventType[type]} ${name} ${entry?.path ?? ''}`)
    const [path, moved] = ['/home/user/watched/sub/file', '/home/user/watched/moved']
    for (const wanted of ['CREATE sub/file', 'WRITE sub/file', 'CHMOD sub/file'])
      assert.ok(
        told.includes(`${wanted} ${path}`) || told.includes(`${wanted} `),
        `${wanted} is not in ${JSON.stringify(told)}`,
      )
    for (const wanted of ['RENAME sub/file ', 'REMOVE moved ']) assert.ok(told.includes(wanted), JSON.stringify(told))
    assert.ok(told.some((each) => each === `CREATE moved ${moved}` || each === 'CREATE moved '))
    assert.ok(told.some((each) => each === 'CREATE end /home/user/watched/end'))
    assert.equal(
      seen.some(({ name }) => name.includes('.icebox-')),
      false,
    )
    const rejected = async (path: string) => {
      for await (const _ of client.watchDir({ path }, { signal })) assert.fail('it must not start')
    }
    await assert.rejects(rejected('/nowhere'), code(Code.NotFound))
    await assert.rejects(rejected('/etc/passwd'), code(Code.InvalidArgument))
  })

  test('a watcher collects changes until it is removed', async () => {
    await envd.shell('mkdir -p /tmp/collected', signal)
    const { watcherId } = await client.createWatcher({ path: '/tmp/collected' })
    assert.deepEqual((await client.getWatcherEvents({ watcherId })).events, [])
    await envd.shell('touch /tmp/collected/one; mkdir /tmp/collected/two', signal)
    const names = new Set<string>()
    while (!names.has('two'))
      for (const { name, type } of (await client.getWatcherEvents({ watcherId })).events) {
        names.add(name)
        if (name === 'two') assert.equal(type, EventType.CREATE)
      }
    assert.deepEqual([...names], ['one', 'two'])
    await client.removeWatcher({ watcherId })
    for (const gone of [client.getWatcherEvents({ watcherId }), client.removeWatcher({ watcherId })])
      await assert.rejects(gone, code(Code.NotFound))
    await assert.rejects(client.createWatcher({ path: '/nowhere' }), code(Code.NotFound))
  })

  test('watchers that nobody removes are not more than a sandbox may have', async () => {
    await envd.shell('mkdir -p /tmp/watched', signal)
    const ids: string[] = []
    const fill = async () => {
      while (ids.length < 200) ids.push((await client.createWatcher({ path: '/tmp/watched' })).watcherId)
    }
    await assert.rejects(fill(), code(Code.ResourceExhausted))
    const [first = '', ...others] = ids
    await client.removeWatcher({ watcherId: first })
    // The guest ends the watch on its own time.
    const another = async (): Promise<string> => {
      for (;;)
        try {
          return (await client.createWatcher({ path: '/tmp/watched' })).watcherId
        } catch (error) {
          code(Code.ResourceExhausted)(error)
          await sleep(20, undefined, { signal })
        }
    }
    others.push(await another())
    for (const watcherId of others) await client.removeWatcher({ watcherId })
  })

  test('a watcher that nobody asks says that changes were lost', async () => {
    await envd.shell('mkdir -p /tmp/many', signal)
    const { watcherId } = await client.createWatcher({ path: '/tmp/many' })
    await envd.shell('cd /tmp/many; seq 1 6000 | xargs touch; touch /tmp/done', signal)
    await assert.rejects(async () => {
      for (;;)
        if ((await client.getWatcherEvents({ watcherId })).events.length > 0) assert.fail('told as if it were all')
    }, code(Code.DataLoss))
    await assert.rejects(client.getWatcherEvents({ watcherId }), code(Code.NotFound))
  })
})
