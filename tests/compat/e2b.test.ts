import assert from 'node:assert/strict'
import { request } from 'node:http'
import { after, before, suite, test } from 'node:test'
import { eventually, type ServerProcess } from '../server-process.ts'
import type { Calls } from './calls.ts'
import { e2bEnvironment, npmClient, setEnvironment, startServer } from './compat.ts'
import { checkCompatibility } from './compatibility.ts'
import { E2B_JS } from './e2b-differences.ts'

/** The clients by the name under which they are installed. */
const VERSIONS = { e2b: 'npm e2b 2.51.0', 'e2b-2.45': 'npm e2b 2.45.0' } as const
const SUITE_MS = 560_000
const LIVES_MS = 300_000

suite('the E2B client for JavaScript', { timeout: SUITE_MS }, () => {
  let server: ServerProcess
  let putBack = () => {}
  before(async () => {
    server = await startServer('e2b')
    putBack = setEnvironment(await e2bEnvironment(server))
  })
  after(async () => {
    putBack()
    await server?.[Symbol.asyncDispose]()
  })
  for (const [name, title] of Object.entries(VERSIONS)) suite(title, () => program(name, title, () => server))
})

/** A port of a sandbox, at the host that the client gives, as a program on another machine would ask for it. */
function get(url: string, host: string, path: string): Promise<{ status: number | undefined; body: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number | undefined; body: string }>()
  const asked = request(new URL(path, url), { headers: { host }, signal: AbortSignal.timeout(30_000) }, (response) => {
    let body = ''
    response.setEncoding('utf8').on('data', (text: string) => {
      body += text
    })
    response.on('error', reject).on('end', () => resolve({ status: response.statusCode, body }))
  })
  asked.on('error', reject).end()
  return promise
}

/** Everything the client exports, as a program uses it. The sandbox is one for all that leave it as it was. */
function program(name: string, title: string, server: () => ServerProcess): void {
  let calls: Calls
  let e2b: Awaited<ReturnType<typeof npmClient>>['client']
  let sandbox: Awaited<ReturnType<typeof e2b.Sandbox.create>>
  const created = new Set<{ kill(): Promise<unknown> }>()
  const create = async (...given: unknown[]) => {
    const made = await e2b.Sandbox.create(...given)
    created.add(made)
    return made
  }

  before(async () => {
    const loaded = await npmClient(name)
    calls = loaded.calls
    e2b = loaded.client
    sandbox = await create({ timeoutMs: LIVES_MS, metadata: { job: title }, envs: { FROM_CREATE: 'yes' } })
  })
  after(() => Promise.all([...created].map((each) => each.kill().catch(() => undefined))))

  test('create, info, list, timeouts, kill', async () => {
    assert.equal(await sandbox.isRunning(), true)
    const info = await sandbox.getInfo()
    assert.equal(info.sandboxId, sandbox.sandboxId)
    assert.deepEqual([info.state, info.metadata, info.cpuCount, info.memoryMB], ['running', { job: title }, 2, 512])
    assert.ok(info.endAt.getTime() - info.startedAt.getTime() <= LIVES_MS + 1000)
    assert.deepEqual(await e2b.Sandbox.getInfo(sandbox.sandboxId), info)
    assert.equal((await e2b.Sandbox.getFullInfo(sandbox.sandboxId)).sandboxId, sandbox.sandboxId)

    await sandbox.setTimeout(2 * LIVES_MS)
    assert.ok((await sandbox.getInfo()).endAt > info.endAt)
    await e2b.Sandbox.setTimeout(sandbox.sandboxId, LIVES_MS)
    assert.ok((await sandbox.getInfo()).endAt.getTime() < info.endAt.getTime() + LIVES_MS)

    const second = await create('base', { metadata: { job: title, second: 'yes' } })
    const pages = e2b.Sandbox.list({ query: { metadata: { job: title } }, limit: 1 })
    const seen: string[] = []
    while (pages.hasNext) for (const each of await pages.nextItems()) seen.push(each.sandboxId)
    assert.deepEqual(seen.sort(), [sandbox.sandboxId, second.sandboxId].sort())
    assert.equal((await e2b.Sandbox.list({ query: { metadata: { second: 'yes', job: title } } }).nextItems()).length, 1)

    assert.equal(await second.kill(), true)
    assert.equal(await second.isRunning(), false)
    assert.equal(await e2b.Sandbox.kill(second.sandboxId), false)
    await assert.rejects(e2b.Sandbox.connect(second.sandboxId), e2b.NotFoundError)
    await assert.rejects(e2b.Sandbox.getInfo(second.sandboxId), e2b.NotFoundError)
    await assert.rejects(create('no-such-template'), /not found|no template/i)
    await assert.rejects(create({ apiKey: `e2b_${'0'.repeat(40)}` }), e2b.AuthenticationError)
  })

  test('another program connects to it', async () => {
    const same = await e2b.Sandbox.connect(sandbox.sandboxId)
    assert.equal((await same.commands.run('echo $FROM_CREATE')).stdout, 'yes\n')
    assert.equal((await same.connect({ timeoutMs: LIVES_MS })).sandboxId, sandbox.sandboxId)
    const bound = new e2b.E2B({ apiKey: process.env.E2B_API_KEY })
    assert.equal((await bound.Sandbox.connect(sandbox.sandboxId)).sandboxId, sandbox.sandboxId)
  })

  test('commands', async () => {
    const { commands } = sandbox
    const told: string[] = []
    const result = await commands.run('whoami; pwd; echo $A >&2', {
      cwd: '/tmp',
      envs: { A: 'ä' },
      onStdout: (text: string) => told.push(text),
      onStderr: (text: string) => told.push(text),
    })
    assert.deepEqual([result.exitCode, result.stdout, result.stderr], [0, 'user\n/tmp\n', 'ä\n'])
    assert.equal(told.join('').length, 'user\n/tmp\nä\n'.length)
    assert.equal((await commands.run('pwd; id -u', { user: 'root' })).stdout, '/root\n0\n')
    const own = await commands.run('echo $E2B_SANDBOX $E2B_SANDBOX_ID $E2B_TEMPLATE_ID')
    assert.equal(own.stdout, `true ${sandbox.sandboxId} base\n`)
    await assert.rejects(commands.run('echo no >&2; exit 3'), (thrown: { exitCode: number; stderr: string }) => {
      assert.ok(thrown instanceof e2b.CommandExitError)
      assert.deepEqual([thrown.exitCode, thrown.stderr], [3, 'no\n'])
      return true
    })
    await assert.rejects(commands.run('sleep 60', { timeoutMs: 1000 }), e2b.TimeoutError)

    const cat = await commands.run('cat', { background: true, stdin: true })
    assert.ok((await commands.list()).some(({ pid }: { pid: number }) => pid === cat.pid))
    await commands.sendStdin(cat.pid, 'one\n')
    await cat.sendStdin('two\n')
    await eventually(async () => (cat.stdout === 'one\ntwo\n' ? true : undefined), 'cat repeats it')
    await cat.closeStdin()
    assert.equal((await cat.wait()).exitCode, 0)
    const other = await commands.run('cat', { background: true, stdin: true })
    await commands.closeStdin(other.pid)
    assert.equal((await other.wait()).exitCode, 0)

    // The client forgets a timer of 60 s when output comes just as it disconnects.
    const long = await commands.run('sleep 600', { background: true })
    const again = await commands.connect(long.pid)
    await again.disconnect()
    assert.equal(await long.kill(), true)
    await assert.rejects(long.wait(), e2b.CommandExitError)
    const second = await commands.run('sleep 600', { background: true })
    assert.equal(await commands.kill(second.pid), true)
    assert.equal(await commands.kill(second.pid), false)
    await assert.rejects(commands.connect(second.pid), e2b.NotFoundError)
    await assert.rejects(commands.run(`kill -0 ${second.pid}`), e2b.CommandExitError)
    await assert.rejects(commands.run('true', { cwd: '/nowhere' }), e2b.InvalidArgumentError)
    await assert.rejects(commands.run('true', { user: 'nobody-here' }), e2b.AuthenticationError)
    const much = await commands.run('head -c 3000000 /dev/zero | tr "\\0" x; printf "\\342\\202"; printf "\\254"')
    assert.deepEqual([much.stdout.length, much.stdout.at(-1)], [3_000_001, '€'])
    const together = await Promise.all(Array.from({ length: 20 }, (_, i) => commands.run(`echo ${i}`)))
    assert.deepEqual(
      together.map(({ stdout }: { stdout: string }) => Number(stdout)),
      [...together.keys()],
    )
  })

  test('files', async () => {
    const { files } = sandbox
    assert.equal(await files.makeDir('work/deep'), true)
    assert.equal(await files.makeDir('work/deep'), false)
    const written = await files.write('work/one.txt', 'première\n')
    assert.equal(written.path, '/home/user/work/one.txt')
    assert.equal(await files.read('work/one.txt'), 'première\n')
    const bytes = Uint8Array.from({ length: 3_000_000 }, (_, i) => i * 7)
    await files.write('/tmp/bytes', bytes.buffer)
    assert.deepEqual(await files.read('/tmp/bytes', { format: 'bytes' }), bytes)
    assert.equal((await files.read('/tmp/bytes', { format: 'blob' })).size, bytes.length)
    let streamed = 0
    for await (const piece of await files.read('/tmp/bytes', { format: 'stream' })) streamed += piece.length
    assert.equal(streamed, bytes.length)
    const many = [
      { path: 'work/a', data: 'A' },
      { path: 'work/deep/b', data: new Blob(['B']) },
    ]
    assert.equal((await files.write(many)).length, 2)
    assert.equal((await files.writeFiles([{ path: 'work/c', data: 'C' }])).length, 1)
    const names = async (path: string, depth?: number) =>
      (await files.list(path, { depth })).map((entry: { name: string }) => entry.name).sort()
    assert.deepEqual(await names('work'), ['a', 'c', 'deep', 'one.txt'])
    assert.deepEqual(await names('work', 2), ['a', 'b', 'c', 'deep', 'one.txt'])
    const moved = await files.rename('work/c', 'work/d')
    assert.deepEqual([moved.name, moved.type, await files.exists('work/c')], ['d', e2b.FileType.FILE, false])
    const info = await files.getInfo('work/d')
    assert.deepEqual([info.size, info.owner, info.group, info.permissions], [1, 'user', 'user', '-rw-r--r--'])
    await files.write('/root/secret', 'x', { user: 'root' })
    assert.equal((await files.getInfo('/root/secret', { user: 'root' })).owner, 'root')
    await files.remove('work/deep')
    assert.equal(await files.exists('work/deep'), false)
    await files.write('empty', '')
    assert.deepEqual([await files.read('empty'), (await files.read('empty', { format: 'bytes' })).length], ['', 0])
    const odd = `work/ü b#?%&"'\\.txt`
    await files.write(odd, 'odd', { metadata: { source: 'test' } })
    assert.equal(await files.read(odd), 'odd')
    assert.deepEqual((await files.getInfo(odd)).metadata, { source: 'test' })
    await sandbox.commands.run('ln -s one.txt link', { cwd: '/home/user/work' })
    assert.match((await files.getInfo('work/link')).symlinkTarget, /one\.txt$/)
    await assert.rejects(files.rename('none', 'other'), e2b.NotFoundError)
    await assert.rejects(files.makeDir('work/a'), e2b.InvalidArgumentError)
    await assert.rejects(files.list('work/a'), e2b.InvalidArgumentError)
    await assert.rejects(files.read('work'), e2b.InvalidArgumentError)
    await files.remove('none')
    await assert.rejects(
      files.watchDir('none', () => undefined),
      e2b.NotFoundError,
    )
    await assert.rejects(files.read('none'), e2b.NotFoundError)
    await assert.rejects(files.list('none'), e2b.NotFoundError)
  })

  test('a directory is watched', async () => {
    await sandbox.files.makeDir('watched')
    const events: string[] = []
    const watch = await sandbox.files.watchDir(
      'watched',
      ({ type, name: file }: { type: string; name: string }) => events.push(`${type} ${file}`),
      { recursive: true },
    )
    await sandbox.files.write('watched/file', 'x')
    await sandbox.files.remove('watched/file')
    for (const event of ['create file', 'write file', 'remove file'])
      await eventually(async () => (events.includes(event) ? true : undefined), event)
    await watch.stop()
  })

  test('terminals', async () => {
    const { pty } = sandbox
    let said = ''
    const decoder = new TextDecoder()
    const onData = (data: Uint8Array) => {
      said += decoder.decode(data, { stream: true })
    }
    const terminal = await pty.create({ cols: 80, rows: 24, onData, envs: { P: 'pty' } })
    const type = (text: string) => pty.sendInput(terminal.pid, new TextEncoder().encode(text))
    await type('stty size; echo $P-$TERM\n')
    await eventually(async () => (/24 80\r\n[\s\S]*pty-xterm/.test(said) ? true : undefined), 'a shell in 24 lines')
    await pty.resize(terminal.pid, { cols: 100, rows: 30 })
    const second = await pty.connect(terminal.pid, { onData })
    await type('stty size\n')
    await eventually(async () => (/30 100\r\n[\s\S]*\$ $/.test(said) ? true : undefined), 'the new size, and a prompt')
    await second.disconnect()
    await type('exit\n')
    assert.equal((await terminal.wait()).exitCode, 0)
    const other = await pty.create({ cols: 10, rows: 10, onData })
    assert.equal(await pty.kill(other.pid), true)
  })

  test('git', async () => {
    const { git } = sandbox
    const bare = '/home/user/origin.git'
    await git.init(bare, { bare: true, initialBranch: 'main' })
    await git.configureUser('Agent', 'agent@example.com')
    await git.setConfig('pull.rebase', 'true')
    assert.equal(await git.getConfig('pull.rebase'), 'true')
    const path = '/home/user/repo'
    await git.init(path, { initialBranch: 'main' })
    await sandbox.files.write(`${path}/file`, 'one\n')
    assert.equal((await git.status(path)).hasUntracked, true)
    await git.add(path)
    await git.commit(path, 'first')
    await git.remoteAdd(path, 'origin', bare)
    assert.equal(await git.remoteGet(path, 'origin'), bare)
    await git.push(path, { remote: 'origin', branch: 'main', setUpstream: true })
    await git.createBranch(path, 'topic')
    assert.deepEqual((await git.branches(path)).currentBranch, 'topic')
    await git.checkoutBranch(path, 'main')
    await git.deleteBranch(path, 'topic', { force: true })
    await sandbox.files.write(`${path}/file`, 'two\n')
    await git.add(path)
    await git.reset(path)
    assert.equal((await git.status(path)).hasStaged, false)
    await git.restore(path, { paths: ['file'] })
    assert.equal((await git.status(path)).isClean, true)
    const clone = '/home/user/clone'
    await git.clone(bare, { path: clone })
    assert.equal(await sandbox.files.read(`${clone}/file`), 'one\n')
    await git.pull(clone)
    await git.dangerouslyAuthenticate({ username: 'user', password: 'token', host: 'example.com' })
  })

  test('ports', async () => {
    await sandbox.files.write('www/index.html', 'hello from inside')
    const page = await sandbox.commands.run('python3 -m http.server 8000 -d www', { background: true })
    const host = sandbox.getHost(8000)
    assert.match(host, new RegExp(`^8000-${sandbox.sandboxId}\\.`))
    const { url } = server().icebox
    const answer = await eventually(async () => {
      const given = await get(url, host, '/')
      return given.status === 200 ? given : undefined
    }, 'the page is served')
    assert.equal(answer.body, 'hello from inside')
    assert.equal((await get(url, sandbox.getHost(8001), '/')).status, 502)
    await page.kill()
  })

  test('signed addresses of files', async () => {
    const up = await sandbox.uploadUrl('/home/user/sent')
    const form = new FormData()
    form.append('file', new Blob(['sent']), 'sent')
    assert.equal((await fetch(up, { method: 'POST', body: form })).ok, true)
    const down = await sandbox.downloadUrl('/home/user/sent', { useSignatureExpiration: 120 })
    assert.equal(await (await fetch(down)).text(), 'sent')
    const bad = new URL(down)
    bad.searchParams.set('path', '/etc/hostname')
    assert.equal((await fetch(bad)).status, 401)
    const { signature } = await e2b.getSignature({
      path: '/x',
      operation: 'read',
      user: 'user',
      envdAccessToken: 'token',
    })
    assert.match(signature, /^v1_/)
  })

  test('metrics', async () => {
    const metrics = await eventually(async () => {
      const all = await sandbox.getMetrics()
      return all.length > 0 ? all : undefined
    }, 'there are metrics')
    const last = metrics.at(-1)
    assert.ok(last.cpuCount === 2 && last.memTotal > 400_000_000 && last.memUsed > 0 && last.diskTotal > 0)
    assert.ok((await e2b.Sandbox.getMetrics(sandbox.sandboxId)).length > 0)
  })

  test('pause and resume keep processes and files', async () => {
    const box = await create({ timeoutMs: LIVES_MS })
    const counter = await box.commands.run('i=0; while :; do i=$((i+1)); echo $i > n; sleep 0.05; done', {
      background: true,
    })
    await eventually(async () => ((await box.files.exists('n')) ? true : undefined), 'it counts')
    assert.equal(await box.pause(), true)
    assert.equal((await e2b.Sandbox.getInfo(box.sandboxId)).state, 'paused')
    assert.equal(await e2b.Sandbox.pause(box.sandboxId), false)
    const paused = await e2b.Sandbox.list({ query: { state: ['paused'] } }).nextItems()
    assert.ok(paused.some((each: { sandboxId: string }) => each.sandboxId === box.sandboxId))
    const same = await e2b.Sandbox.connect(box.sandboxId)
    assert.ok((await same.commands.list()).some(({ pid }: { pid: number }) => pid === counter.pid))
    const before = Number(await same.files.read('n'))
    await eventually(async () => (Number(await same.files.read('n')) > before ? true : undefined), 'it counts on')
    assert.equal(await same.betaPause(), true)
    assert.equal(await e2b.Sandbox.betaPause(box.sandboxId), false)
    assert.equal(await e2b.Sandbox.kill(box.sandboxId), true)
  })

  test('a sandbox that is paused or gone is told from one that fails', async () => {
    const box = await create({ timeoutMs: LIVES_MS })
    const isUnreachable = async () => {
      assert.equal(await box.isRunning(), false)
      const uses: [what: string, use: () => Promise<unknown>, as: unknown][] = [
        ['commands.list', () => box.commands.list(), e2b.TimeoutError],
        ['commands.kill', () => box.commands.kill(1), e2b.TimeoutError],
        ['files.read', () => box.files.read('kept'), e2b.TimeoutError],
        ['files.write', () => box.files.write('kept', 'x'), e2b.TimeoutError],
        ['files.list', () => box.files.list('.'), e2b.TimeoutError],
        // The client's word for the same answer where a stream was to begin.
        ['commands.run', () => box.commands.run('true'), e2b.SandboxNotFoundError],
        ['pty.create', () => box.pty.create({ cols: 80, rows: 24, onData: () => undefined }), e2b.SandboxNotFoundError],
        ['files.watchDir', () => box.files.watchDir('.', () => undefined), e2b.SandboxNotFoundError],
      ]
      for (const [what, use, as] of uses)
        await assert.rejects(use, (thrown) => {
          assert.equal((thrown as Error).constructor, as, `${what}: ${thrown}`)
          return true
        })
    }
    await box.pause()
    await isUnreachable()
    assert.equal((await e2b.Sandbox.getInfo(box.sandboxId)).state, 'paused')
    await box.kill()
    await isUnreachable()
  })

  test('what was in memory and on disk is the same after every pause', async () => {
    const box = await create({ timeoutMs: LIVES_MS })
    const connected = () => e2b.Sandbox.connect(box.sandboxId)
    const run = async (command: string) => (await (await connected()).commands.run(command, { user: 'root' })).stdout
    await run('for f in disk holes short /dev/shm/memory; do head -c 8000000 /dev/urandom > $f; done')
    await box.pause()
    const sums = 'sha256sum disk holes short /dev/shm/memory'
    await run('dd if=/dev/zero of=holes bs=1M seek=2 count=3 conv=notrunc; truncate -s 3M short; truncate -s 8M short')
    const before = await run(sums)
    await box.pause()
    assert.equal(await run(sums), before)
    const boot = await run('cat /proc/sys/kernel/random/boot_id')
    await box.pause({ keepMemory: false })
    assert.notEqual(await run('cat /proc/sys/kernel/random/boot_id'), boot)
    const files = 'sha256sum disk holes short'
    assert.ok(before.startsWith(await run(files)))
    await box.kill()
  })

  test('a sandbox pauses at the end of its time, and a request resumes it', async () => {
    const box = await create({ timeoutMs: 2000, lifecycle: { onTimeout: 'pause', autoResume: true } })
    await box.files.write('kept', 'x')
    const state = async () => (await e2b.Sandbox.getInfo(box.sandboxId)).state
    await eventually(async () => ((await state()) === 'paused' ? true : undefined), 'it pauses by itself')
    assert.equal(await box.files.read('kept'), 'x')
    assert.equal(await state(), 'running')
    const { endAt } = await e2b.Sandbox.getInfo(box.sandboxId)
    assert.ok(endAt.getTime() - Date.now() > 250_000, 'it lives for five minutes then')
    const ending = await create({ timeoutMs: 1000 })
    const gone = async () => ((await ending.isRunning()) ? undefined : true)
    await eventually(gone, 'another ends with its time')
  })

  test('snapshots', async () => {
    await sandbox.files.write('at-snapshot', 'then')
    const snapshot = await sandbox.createSnapshot({ name: `${name.replace('.', '-')}-kept` })
    await sandbox.files.write('at-snapshot', 'later')
    const second = await e2b.Sandbox.createSnapshot(sandbox.sandboxId)
    const listed = async (pages: { nextItems(): Promise<{ snapshotId: string }[]> }) =>
      (await pages.nextItems()).map(({ snapshotId }) => snapshotId)
    assert.deepEqual((await listed(sandbox.listSnapshots())).sort(), [snapshot.snapshotId, second.snapshotId].sort())
    assert.ok((await listed(e2b.Sandbox.listSnapshots())).includes(snapshot.snapshotId))
    const from = await create(snapshot.snapshotId)
    assert.equal(await from.files.read('at-snapshot'), 'then')
    await from.kill()
    for (const { snapshotId } of [snapshot, second]) assert.equal(await e2b.Sandbox.deleteSnapshot(snapshotId), true)
    assert.equal(await e2b.Sandbox.deleteSnapshot(second.snapshotId), false)
  })

  test('snapshots of one name are told apart by tags', async () => {
    const { TemplateBase } = e2b
    const family = `${name.replace('.', '-')}-family`
    const take = async (tag: string) => {
      await sandbox.files.write('tagged', tag)
      return sandbox.createSnapshot({ name: `${family}:${tag}` })
    }
    const [one] = [await take('v1'), await take('v2')]
    assert.match(one.snapshotId, new RegExp(`${family}:v1$`))
    await TemplateBase.assignTags(`${family}:v1`, ['stable'])
    const tags = async () => (await TemplateBase.getTags(family)).map(({ tag }: { tag: string }) => tag).sort()
    assert.deepEqual(await tags(), ['stable', 'v1', 'v2'])
    const from = await create(`${family}:stable`)
    assert.equal(await from.files.read('tagged'), 'v1')
    await TemplateBase.removeTags(family, ['stable'])
    assert.deepEqual(await tags(), ['v1', 'v2'])
    for (const tag of ['v1', 'v2']) assert.equal(await e2b.Sandbox.deleteSnapshot(`${family}:${tag}`), true)
  })

  test('forks', async () => {
    await sandbox.files.write('before', 'same')
    const forks = [...(await sandbox.fork({ count: 2 })), ...(await e2b.Sandbox.fork(sandbox.sandboxId))]
    assert.equal(forks.length, 3)
    for (const fork of forks) {
      assert.ok(!(fork instanceof Error), String(fork))
      created.add(fork)
      assert.equal(await fork.files.read('before'), 'same')
      await fork.files.write('before', fork.sandboxId)
    }
    assert.equal(await sandbox.files.read('before'), 'same')
  })

  test('what is not there says so', async () => {
    await sandbox.updateNetwork({ denyOut: ['10.0.0.0/8'] })
    await e2b.Sandbox.updateNetwork(sandbox.sandboxId, { denyOut: [] })
    await assert.rejects(create({ volumeMounts: { '/data': 'none' } }), /volume/i)
    await assert.rejects(create({ mcp: { github: {} } }), /mcp/i)
    await assert.rejects(e2b.Volume.list(), /404|not found|does not offer/i)
    await assert.rejects(e2b.Secret.list().nextItems(), /404|not found|does not offer/i)
    const offline = await create({ allowInternetAccess: true, network: { allowOut: ['example.com'] } })
    assert.equal((await offline.getInfo()).allowInternetAccess, false)
    assert.equal((await offline.commands.run('tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d " "')).stdout, 'lo\n')
    await offline.kill()
  })

  test('templates: what there is can be asked for, builds say that they are not made here', async () => {
    const { Template, TemplateBase } = e2b
    assert.equal(await TemplateBase.exists('base'), true)
    assert.equal(await TemplateBase.aliasExists('none-of-that-name'), false)
    const credentials = { username: 'u', password: 'p' }
    const sources = [
      ...[Template().fromDebianImage(), Template().fromUbuntuImage(), Template().fromFedoraImage()],
      ...[Template().fromAlpineImage(), Template().fromArchImage(), Template().fromPythonImage()],
      ...[Template().fromNodeImage(), Template().fromBunImage(), Template().fromImage('a:1', credentials)],
      ...[Template().fromTemplate('base'), Template().fromDockerfile('FROM debian\nRUN true\n')],
      Template().fromAWSRegistry('a', { accessKeyId: 'i', secretAccessKey: 's', region: 'r' }),
      Template().fromGCPRegistry('a', { serviceAccountJSON: { project_id: 'p' } }),
    ]
    assert.equal(
      new Set(await Promise.all(sources.map((each) => TemplateBase.toJSON(each, false)))).size,
      sources.length,
    )
    const built = Template()
      .fromBaseImage()
      .copy('package.json', '/app/')
      .copyItems([{ src: 'package.json', dest: '/b/' }])
      .remove('/b')
      .rename('/app/package.json', '/app/p.json')
      .makeDir('/c')
      .makeSymlink('/c', '/d')
      .runCmd('true')
      .setWorkdir('/app')
      .setUser('user')
      .pipInstall('x')
      .npmInstall('x')
      .bunInstall('x')
      .aptInstall('x')
      .gitClone('https://example.com/a.git')
      .setEnvs({ A: '1' })
      .skipCache()
    assert.match(TemplateBase.toDockerfile(Template().fromDebianImage().runCmd('true')), /^FROM debian/)
    const ready = [e2b.waitForPort(1), e2b.waitForURL('http://localhost'), e2b.waitForProcess('p')]
    for (const each of [...ready, e2b.waitForFile('/f'), e2b.waitForTimeout(1000)]) assert.ok(each.getCmd().length > 0)
    built.setStartCmd('true', e2b.waitForTimeout(1000))
    Template().fromBaseImage().setReadyCmd('true')
    Template().fromTemplate('mcp-gateway').addMcpServer('github')
    Template().fromTemplate('devcontainer').betaDevContainerPrebuild('/d').betaSetDevContainerStart('/d')

    const plain = Template().fromBaseImage().runCmd('true')
    const onBuildLogs = e2b.defaultBuildLogger()
    await assert.rejects(TemplateBase.build(plain, 'mine', { onBuildLogs }), /cannot be built/)
    await assert.rejects(TemplateBase.buildInBackground(plain, 'mine'), /cannot be built/)
    await assert.rejects(TemplateBase.getBuildStatus({ templateId: 'base', buildId: 'none' }), /cannot be built/)
    await assert.rejects(TemplateBase.assignTags('base', 'tag'), /tag default only/)
    await assert.rejects(TemplateBase.removeTags('base', 'tag'), /tag default only/)
    assert.deepEqual(
      (await TemplateBase.getTags('base')).map(({ tag }: { tag: string }) => tag),
      ['default'],
    )
    await assert.rejects(TemplateBase.getTags('none'), /not found|no template/i)
  })

  test('what needs no server', () => {
    for (const Entry of [e2b.LogEntryStart, e2b.LogEntryEnd])
      assert.match(new Entry(new Date(0), 'hello').toString(), /hello/)
    assert.match(new e2b.LogEntry(new Date(0), 'info', 'hello').toString(), /hello/)
    const config = new e2b.ConnectionConfig({ domain: 'example.com' })
    assert.ok(config.getSignal(1000) instanceof AbortSignal)
    const at = { sandboxDomain: 'example.com', envdPort: 49983 }
    assert.match(config.getSandboxUrl('id', at), /^http/)
    assert.match(config.getSandboxDirectUrl('id', at), /^http/)
    assert.equal(config.getHost('id', 80, 'example.com'), '80-id.example.com')
    e2b.ConnectionConfig.mergeOpts({ domain: 'a' }, { domain: 'b' })
    e2b.ConnectionConfig.setIntegration(undefined)
  })

  test('nothing that the client exports was forgotten', () => checkCompatibility(title, calls.list, E2B_JS))
}
