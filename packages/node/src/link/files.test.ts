import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import type { FileEvent } from '@icebox/model'
import type { GuestLink } from './link.ts'
import { bytesOf, ran, TestGuest } from './testing.ts'

const signal = AbortSignal.timeout(120_000)

describe('files of a guest', { timeout: 120_000 }, () => {
  let guest: TestGuest
  let link: GuestLink
  before(async () => {
    const started = await TestGuest.running(signal)
    guest = started.guest
    link = started.link
  })
  after(() => guest?.stop())

  const read = async (path: string, options = {}) => {
    const parts: Uint8Array[] = []
    for await (const part of (await link.readFile(path, options, signal)).data) parts.push(part)
    return Buffer.concat(parts)
  }
  const shell = async (command: string, user = 'root') => {
    const result = await ran(link, { argv: ['sh', '-c', command], user }, signal)
    assert.equal(result.exit?.exitCode, 0, result.stderr)
    return result.stdout
  }

  test('a file is written with its directories and read back, whole and in part', async () => {
    const content = randomBytes(5_000_000)
    const info = await link.writeFile('/tmp/a/b/file', bytesOf(content), {}, signal)
    assert.equal(info.path, '/tmp/a/b/file')
    assert.deepEqual(
      [info.name, info.type, info.size, info.mode, info.owner, info.group],
      ['file', 'file', content.length, 0o644, 'root', 'root'],
    )
    assert.ok(Math.abs(Date.parse(info.modifiedAt) - Date.now()) < 600_000)
    const opened = await link.readFile('/tmp/a/b/file', {}, signal)
    assert.equal(opened.info.size, content.length)
    assert.ok((await read('/tmp/a/b/file')).equals(content))
    assert.ok((await read('/tmp/a/b/file', { offset: 4_999_990 })).equals(content.subarray(4_999_990)))
    assert.ok((await read('/tmp/a/b/file', { offset: 100, length: 70_000 })).equals(content.subarray(100, 70_100)))
    assert.equal((await read('/tmp/a/b/file', { offset: 6_000_000 })).length, 0)
    assert.equal((await read('/tmp/a/b/file', { length: 0 })).length, 0)
    assert.equal((await link.writeFile('/tmp/empty', bytesOf(), {}, signal)).size, 0)
    assert.match((await read('/proc/self/status')).toString(), /^Name:\tguest\n/)
  })

  test('a write replaces at once, keeps mode and owner, and goes through symlinks', async () => {
    await shell('echo old > /tmp/kept; chown 1234:5555 /tmp/kept; chmod 4750 /tmp/kept; ln -s kept /tmp/link')
    const started = Promise.withResolvers<void>()
    const go = Promise.withResolvers<void>()
    async function* slow() {
      yield Buffer.from('new')
      started.resolve()
      await go.promise
      yield Buffer.from('er')
    }
    const writing = link.writeFile('/tmp/link', slow(), {}, signal)
    await started.promise
    assert.equal((await read('/tmp/kept')).toString(), 'old\n')
    go.resolve()
    const info = await writing
    assert.deepEqual([info.path, info.mode, info.uid, info.gid], ['/tmp/kept', 0o4750, 1234, 5555])
    assert.equal((await read('/tmp/link')).toString(), 'newer')
    assert.equal((await link.stat('/tmp/link', {}, signal)).target, 'kept')
    assert.equal((await link.writeFile('/tmp/kept', bytesOf('x'), { mode: 0o600 }, signal)).mode, 0o600)
    assert.equal(await shell('ls -A /tmp | grep -c icebox || true'), '0\n')
  })

  test('a write that fails, or whose caller gives up, leaves the old content and nothing else', async () => {
    await link.writeFile('/tmp/d/file', bytesOf('old'), {}, signal)
    async function* broken() {
      yield randomBytes(100_000)
      throw new Error('the source broke')
    }
    await assert.rejects(link.writeFile('/tmp/d/file', broken(), {}, signal), /the source broke/)
    const stop = new AbortController()
    async function* endless() {
      for (let n = 0; ; n++) {
        if (n === 20) stop.abort()
        yield randomBytes(100_000)
      }
    }
    await assert.rejects(link.writeFile('/tmp/d/file', endless(), {}, stop.signal), { code: 'DeadlineExceeded' })
    async function* stuck() {
      yield Buffer.from('the beginning')
      await new Promise(() => undefined)
    }
    await assert.rejects(link.writeFile('/tmp/d', stuck(), {}, signal), { code: 'InvalidArgument' })
    const leaving = AbortSignal.timeout(100)
    await assert.rejects(link.writeFile('/tmp/d/file', stuck(), {}, leaving), { code: 'DeadlineExceeded' })
    async function* large() {
      for (let n = 0; n < 100; n++) yield randomBytes(100_000)
    }
    await assert.rejects(link.writeFile('/small/file', large(), {}, signal), {
      code: 'NoSpace',
      message: /\/small\/file/,
    })
    while ((await shell('ls -A /tmp/d /small')) !== '/small:\n\n/tmp/d:\nfile\n');
    assert.equal((await read('/tmp/d/file')).toString(), 'old')
  })

  test('everything is done with the rights of the user it is for', async () => {
    const user = 'tester'
    const mine = await link.writeFile('notes/one', bytesOf('mine'), { user }, signal)
    assert.deepEqual([mine.path, mine.owner, mine.group], ['/home/tester/notes/one', 'tester', 'testers'])
    await shell('mkdir -m 700 /root/secret; echo secret > /root/secret/file; echo r > /tmp/roots; chmod 777 /root')
    const denied = { code: 'InvalidArgument', message: /denied|not permitted/ }
    await assert.rejects(link.readFile('/root/secret/file', { user }, signal), denied)
    await assert.rejects(link.stat('/root/secret/file', { user }, signal), denied)
    await assert.rejects(link.list('/root/secret', { user }, signal), denied)
    await assert.rejects(link.writeFile('/etc/new', bytesOf('x'), { user }, signal), denied)
    await assert.rejects(link.writeFile('/tmp/roots', bytesOf('x'), { user }, signal), denied)
    await assert.rejects(link.makeDirectory('/etc/new', { user }, signal), denied)
    await assert.rejects(link.move('/tmp/roots', '/tmp/mine', { user }, signal), denied)
    await assert.rejects(link.remove('/tmp/roots', { user }, signal), denied)
    await assert.rejects(link.symlink('x', '/etc/x', { user }, signal), denied)
    await assert.rejects(link.setAttributes('/tmp/roots', { mode: 0o777 }, { user }, signal), denied)
    await assert.rejects(link.setAttributes('notes/one', { owner: 'root' }, { user }, signal), denied)
    await assert.rejects(link.watch('/root/secret', { user }, signal), denied)
    // A group that is only a supplementary one counts.
    await shell('echo g > /tmp/grouped; chown 0:5555 /tmp/grouped; chmod 640 /tmp/grouped')
    assert.equal((await read('/tmp/grouped', { user })).toString(), 'g\n')
    await assert.rejects(link.readFile('/tmp/grouped', { user: 'tester:testers' }, signal), denied)
    // The thread that acts for a user cannot be signalled by that user.
    assert.equal(await shell('ls /proc/1/task | xargs kill -9; echo alive', user), 'alive\n')
    await assert.rejects(link.stat('/tmp', { user: 'stranger' }, signal), { code: 'NotFound', message: /stranger/ })
  })

  test('lists are sorted, as deep as asked, and say what each entry is', async () => {
    await shell(`mkdir -p /tmp/list/b/c /tmp/list/a.d; echo x > /tmp/list/b/file; ln -s file /tmp/list/b/soft
      mkfifo /tmp/list/fifo; echo y > /tmp/list/b/c/deep; chmod 1777 /tmp/list/a.d`)
    await ran(
      link,
      {
        argv: [
          'perl',
          '-e',
          'use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un("/tmp/list/socket"))',
        ],
      },
      signal,
    )
    const shallow = await link.list('/tmp/list', {}, signal)
    assert.deepEqual(
      shallow.map(({ name, type }) => [name, type]),
      [
        ['a.d', 'directory'],
        ['b', 'directory'],
        ['fifo', 'fifo'],
        ['socket', 'socket'],
      ],
    )
    assert.equal(shallow[0]?.mode, 0o1777)
    const paths = async (depth: number) =>
      (await link.list('/tmp/list/', { depth }, signal)).map(({ path }) => path.slice(10))
    assert.deepEqual(await paths(2), ['a.d', 'b', 'b/c', 'b/file', 'b/soft', 'fifo', 'socket'])
    assert.deepEqual(await paths(3), ['a.d', 'b', 'b/c', 'b/c/deep', 'b/file', 'b/soft', 'fifo', 'socket'])
    const soft = (await link.list('/tmp/list/b', {}, signal)).find(({ name }) => name === 'soft')
    assert.deepEqual([soft?.type, soft?.target], ['symlink', 'file'])
    assert.equal((await link.stat('/dev/null', {}, signal)).type, 'device')
    await assert.rejects(link.list('/etc/passwd', {}, signal), {
      code: 'InvalidArgument',
      message: /[Nn]ot a directory/,
    })
    await assert.rejects(link.list('/nowhere', {}, signal), { code: 'NotFound' })
    await shell('mkdir /tmp/many; cd /tmp/many; seq 1 3000 | xargs touch')
    assert.equal((await link.list('/tmp/many', {}, signal)).length, 3000)
  })

  test('names that are not UTF-8, and odd ones, do no harm', async () => {
    await shell(
      "mkdir /tmp/odd; cd /tmp/odd; touch \"$(printf 'a\\377b')\" \"$(printf 'new\\nline')\" 'quo\"te'; ln -s \"$(printf 'x\\376')\" soft",
    )
    const names = (await link.list('/tmp/odd', {}, signal)).map(({ name, target }) => [name, target])
    assert.deepEqual(names, [
      ['a\ufffdb', undefined],
      ['new\nline', undefined],
      ['quo"te', undefined],
      ['soft', 'x\ufffd'],
    ])
    assert.equal((await link.stat('/tmp/odd/new\nline', {}, signal)).name, 'new\nline')
    await assert.rejects(link.stat('', {}, signal), { code: 'InvalidArgument' })
    await assert.rejects(link.stat('/a\0b', {}, signal), { code: 'InvalidArgument' })
    await assert.rejects(link.stat('/'.padEnd(5000, 'x'), {}, signal), { code: 'InvalidArgument' })
    await link.remove('/tmp/odd', {}, signal)
    await assert.rejects(link.stat('/tmp/odd', {}, signal), { code: 'NotFound' })
  })

  test('directories, moves, symlinks, attributes', async () => {
    assert.equal(await link.makeDirectory('/tmp/m/one/two', { mode: 0o750 }, signal), true)
    assert.equal(await link.makeDirectory('/tmp/m/one/two', {}, signal), false)
    assert.deepEqual(
      [(await link.stat('/tmp/m/one/two', {}, signal)).mode, (await link.stat('/tmp/m/one', {}, signal)).mode],
      [0o750, 0o755],
    )
    await link.writeFile('/tmp/m/one/file', bytesOf('1'), {}, signal)
    await assert.rejects(link.makeDirectory('/tmp/m/one/file', {}, signal), { code: 'AlreadyExists' })
    assert.equal((await link.move('/tmp/m/one', '/tmp/m/else/three', {}, signal)).path, '/tmp/m/else/three')
    assert.equal((await read('/tmp/m/else/three/file')).toString(), '1')
    await assert.rejects(link.move('/tmp/m/one', '/tmp/m/two', {}, signal), { code: 'NotFound', message: /m\/one/ })
    const soft = await link.symlink('../nowhere', '/tmp/m/soft', {}, signal)
    assert.deepEqual([soft.type, soft.target], ['symlink', '../nowhere'])
    await assert.rejects(link.symlink('x', '/tmp/m/soft', {}, signal), { code: 'AlreadyExists' })
    const changed = await link.setAttributes(
      '/tmp/m/else/three/file',
      { mode: 0o4711, owner: 'tester:helpers' },
      {},
      signal,
    )
    assert.deepEqual([changed.mode, changed.owner, changed.group], [0o4711, 'tester', 'helpers'])
    const group = (await link.setAttributes('/tmp/m/else/three/file', { owner: 'nobody' }, {}, signal)).group
    assert.equal(group, 'helpers')
    await assert.rejects(link.setAttributes('/tmp/m/soft', { mode: 0o600 }, {}, signal), { code: 'NotFound' })
  })

  test('a move to another file system keeps what was moved', async () => {
    await shell(`mkdir -p /tmp/tree/sub; cd /tmp/tree; echo 1 > one; chmod 4755 one; chown 1234:4321 one; ln -s one soft
      echo 2 > sub/two; touch -d '2001-02-03 04:05:06' sub/two sub; chmod 500 sub`)
    const look = (at: string) =>
      shell(`cd ${at}; stat -c '%n %F %a %u %g %Y' one sub sub/two; readlink soft; cat one sub/two`)
    const before = await look('/tmp/tree')
    await link.move('/tmp/tree', '/small/tree', {}, signal)
    assert.equal(await look('/small/tree'), before)
    await assert.rejects(link.stat('/tmp/tree', {}, signal), { code: 'NotFound' })
    await shell('mkdir -p /tmp/big; head -c 3000000 /dev/zero > /tmp/big/file')
    await assert.rejects(link.move('/tmp/big', '/small/big', {}, signal), { code: 'NoSpace' })
    assert.equal(await shell('ls -A /small; stat -c %s /tmp/big/file'), 'tree\n3000000\n')
  })

  test('a directory goes with all it holds, symlinks are not followed, depth does no harm', async () => {
    await shell(
      'mkdir -p /tmp/precious /tmp/gone/sub; echo p > /tmp/precious/file; ln -s /tmp/precious /tmp/gone/sub/link; ln -s /tmp/precious /tmp/alias',
    )
    await link.remove('/tmp/gone', {}, signal)
    await link.remove('/tmp/alias', {}, signal)
    assert.equal((await read('/tmp/precious/file')).toString(), 'p\n')
    await assert.rejects(link.remove('/tmp/gone', {}, signal), { code: 'NotFound' })
    await ran(
      link,
      {
        argv: [
          'perl',
          '-e',
          'mkdir "/tmp/deep"; chdir "/tmp/deep"; for (1..3000) { mkdir "directory"; chdir "directory" }',
        ],
      },
      signal,
    )
    await link.list('/tmp/deep', { depth: 4000 }, signal)
    await link.remove('/tmp/deep', {}, signal)
    await assert.rejects(link.stat('/tmp/deep', {}, signal), { code: 'NotFound' })
  })

  test('what is no regular file is refused and waited for by nobody', async () => {
    await shell('mkfifo /tmp/pipe')
    for (const path of ['/tmp/pipe', '/dev/zero', '/tmp']) {
      await assert.rejects(link.readFile(path, {}, signal), { code: 'InvalidArgument' })
      await assert.rejects(link.writeFile(path, bytesOf('x'), {}, signal), { code: 'InvalidArgument' })
    }
    assert.equal((await link.stat('/dev/zero', {}, signal)).type, 'device')
  })

  test('a slow reader of one file holds up nothing else; one that leaves ends the reading', async () => {
    await shell('head -c 20000000 /dev/zero > /tmp/large')
    const slow = await Promise.all(Array.from({ length: 100 }, () => link.readFile('/tmp/large', {}, signal)))
    assert.equal((await link.stat('/tmp/large', {}, signal)).size, 20_000_000)
    for (const { data } of slow) for await (const _ of data) break
    const all = Array.from({ length: 40 }, () => read('/tmp/large', { length: 1_000_000 }))
    assert.deepEqual(
      (await Promise.all(all)).map(({ length }) => length),
      Array.from({ length: 40 }, () => 1_000_000),
    )
  })

  test('a watch tells what happens, below too when asked, until its signal aborts', async () => {
    await shell('mkdir -p /tmp/watched/sub')
    const stop = new AbortController()
    const events = await link.watch('/tmp/watched', { recursive: true }, stop.signal)
    const seen: FileEvent[] = []
    const reading = (async () => {
      for await (const event of events) {
        seen.push(event)
        if (event.type === 'create' && event.path === '/tmp/watched/end') stop.abort()
      }
    })()
    await shell(
      'cd /tmp/watched; echo x > sub/file; chmod 600 sub/file; mv sub/file sub/other; mkdir new; rm sub/other',
    )
    // What happens in a directory before the watch has reached it is missed.
    while (!seen.some((e) => e.type === 'create' && e.path === '/tmp/watched/new/file'))
      await shell('cd /tmp/watched/new; rm -f file; touch file')
    await shell('touch /tmp/watched/end')
    await reading
    const has = (type: string, path: string) =>
      assert.ok(
        seen.some((e) => e.type === type && 'path' in e && e.path === `/tmp/watched/${path}`),
        `${type} ${path}: ${JSON.stringify(seen)}`,
      )
    has('create', 'sub/file')
    has('write', 'sub/file')
    has('chmod', 'sub/file')
    has('rename', 'sub/file')
    has('create', 'sub/other')
    has('remove', 'sub/other')
    has('create', 'new')
    const flat = new AbortController()
    const only = await link.watch('/tmp/watched', {}, flat.signal)
    await shell('cd /tmp/watched; touch sub/unseen; touch seen')
    for await (const event of only) {
      assert.deepEqual(event, { type: 'create', path: '/tmp/watched/seen' })
      break
    }
    await assert.rejects(link.watch('/nowhere', {}, signal), { code: 'NotFound' })
  })

  test('a write is told of as one, whatever it is made of', async () => {
    await link.makeDirectory('/tmp/written', {}, signal)
    const stop = new AbortController()
    const events = await link.watch('/tmp/written', {}, stop.signal)
    await link.writeFile('/tmp/written/file', bytesOf('one'), {}, signal)
    await link.writeFile('/tmp/written/file', bytesOf('two'), {}, signal)
    await shell('touch /tmp/written/end')
    const seen: string[] = []
    for await (const event of events) {
      const path = 'path' in event ? event.path : ''
      if (path === '/tmp/written/end') break
      seen.push(`${event.type} ${path}`)
    }
    stop.abort()
    assert.deepEqual(seen, ['create /tmp/written/file', 'write /tmp/written/file', 'write /tmp/written/file'])
  })

  test('extended attributes and where symlinks lead are told when asked for', async () => {
    const more = { xattrs: 'user.t.' }
    const xattrs = { 'user.t.a': '1', 'user.t.b': 'two words', 'user.other': 'x' }
    const written = await link.writeFile('/tmp/x/file', bytesOf('x'), { mode: 0o640, xattrs }, signal)
    assert.equal(written.xattrs, undefined)
    await shell('cd /tmp/x; ln -s file soft; ln -s /tmp/x up; ln -s nowhere dangling; mkdir plain')
    const told = { 'user.t.a': '1', 'user.t.b': 'two words' }
    assert.deepEqual((await link.stat('/tmp/x/file', more, signal)).xattrs, told)
    assert.equal((await link.stat('/tmp/x/file', {}, signal)).xattrs, undefined)
    const soft = await link.stat('/tmp/x/up/soft', more, signal)
    assert.deepEqual(soft.leadsTo, { path: '/tmp/x/file', type: 'file', mode: 0o640 })
    assert.deepEqual([soft.type, soft.target, soft.xattrs], ['symlink', 'file', told])
    const listed = await link.list('/tmp/x', { ...more, depth: 2 }, signal)
    assert.deepEqual(
      listed.map(({ name, leadsTo, xattrs }) => [name, leadsTo?.path, Object.keys(xattrs ?? {}).length]),
      [
        ['dangling', undefined, 0],
        ['file', undefined, 2],
        ['plain', undefined, 0],
        ['soft', '/tmp/x/file', 2],
        ['up', '/tmp/x', 0],
      ],
    )
    assert.deepEqual((await link.move('/tmp/x/file', '/tmp/x/moved', more, signal)).xattrs, told)
    await link.writeFile('/tmp/x/moved', bytesOf('y'), { xattrs: { 'user.t.c': '3' } }, signal)
    assert.deepEqual((await link.stat('/tmp/x/moved', more, signal)).xattrs, { 'user.t.c': '3' })
    await link.writeFile('/tmp/x/moved', bytesOf('y'), {}, signal)
    assert.deepEqual((await link.stat('/tmp/x/moved', more, signal)).xattrs, {})
  })

  test('a privileged request has root’s rights, and what it makes belongs to the user', async () => {
    const mine = { user: 'tester', privileged: true }
    await shell('mkdir -m 700 -p /root/closed; echo secret > /root/closed/file; chmod 600 /root/closed/file')
    assert.equal((await read('/root/closed/file', mine)).toString(), 'secret\n')
    await assert.rejects(link.stat('/root/closed/file', { user: 'tester' }, signal), { code: 'InvalidArgument' })
    assert.equal((await link.stat('/root/closed/file', mine, signal)).owner, 'root')
    assert.equal((await link.list('/root/closed', mine, signal)).length, 1)
    const made = await link.writeFile('/root/closed/new/dir/file', bytesOf('x'), mine, signal)
    assert.deepEqual([made.owner, made.group, made.mode], ['tester', 'testers', 0o644])
    assert.equal((await link.writeFile('/root/closed/file', bytesOf('x'), mine, signal)).owner, 'tester')
    assert.equal(await link.makeDirectory('/root/closed/a/b', mine, signal), true)
    assert.equal((await link.move('/root/closed/file', '/root/closed/c/file', mine, signal)).owner, 'tester')
    assert.equal(
      await shell('cd /root/closed; stat -c "%n %U" new new/dir a a/b c'),
      'new tester\nnew/dir tester\na tester\na/b tester\nc tester\n',
    )
    // Relative paths start at the user's home all the same.
    assert.equal((await link.writeFile('in-home', bytesOf(''), mine, signal)).path, '/home/tester/in-home')
    const stop = new AbortController()
    await link.watch('/root/closed', mine, stop.signal)
    stop.abort()
    await link.remove('/root/closed', mine, signal)
  })
})
