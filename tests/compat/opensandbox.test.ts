import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { BASE_IMAGE } from '@icebox/node'
import { eventually, type ServerProcess } from '../server-process.ts'
import type { Calls } from './calls.ts'
import { npmClient, openSandboxEnvironment, pythonProgram, setEnvironment, startServer } from './compat.ts'
import { checkCompatibility } from './compatibility.ts'
import { OPENSANDBOX_JS, OPENSANDBOX_PYTHON } from './opensandbox-differences.ts'

const SUITE_MS = 560_000
const SIZE = { cpu: '1', memory: '256Mi' }

let server: ServerProcess
let putBack = () => {}
/** What the first create of a program would pull. */
let image: string

before(async () => {
  server = await startServer('opensandbox')
  putBack = setEnvironment(await openSandboxEnvironment(server))
  // Like most images: its commands are root's.
  image = (await server.icebox.images.pull(BASE_IMAGE)).digest
})
after(async () => {
  putBack()
  await server?.[Symbol.asyncDispose]()
})

suite('the OpenSandbox client for JavaScript', { timeout: SUITE_MS }, () => {
  let calls: Calls
  let client: Awaited<ReturnType<typeof npmClient>>['client']
  let sandbox: Awaited<ReturnType<typeof client.Sandbox.create>>
  let manager: ReturnType<typeof client.SandboxManager.create>
  const created = new Set<{ kill(): Promise<unknown>; close(): Promise<unknown> }>()
  const create = async (more: object = {}) => {
    const made = await client.Sandbox.create({ image, resource: SIZE, readyTimeoutSeconds: 120, ...more })
    created.add(made)
    return made
  }
  const code = (status: number) => (thrown: { statusCode?: number }) => thrown.statusCode === status
  const texts = (messages: { text: string }[]) => messages.map(({ text }) => text)
  const state = async (id: string) => (await manager.getSandboxInfo(id)).status.state

  before(async () => {
    const loaded = await npmClient('@alibaba-group/opensandbox')
    calls = loaded.calls
    client = loaded.client
    manager = client.SandboxManager.create()
    sandbox = await create({ env: { FROM_CREATE: 'yes' }, metadata: { team: 'a', 'example.com/job': 'js' } })
  })
  after(async () => {
    await Promise.all([...created].map((each) => each.kill().catch(() => undefined)))
    await Promise.all([...created].map((each) => each.close()))
  })

  test('create, connect, info, health, metrics, metadata, renewal, list', async () => {
    const info = await sandbox.getInfo()
    assert.deepEqual([info.id, info.image, info.status.state], [sandbox.id, { uri: image }, 'Running'])
    assert.deepEqual(info.entrypoint, ['tail', '-f', '/dev/null'])
    assert.ok(info.expiresAt > info.createdAt)
    const again = await client.Sandbox.connect({ sandboxId: sandbox.id })
    assert.equal(await again.isHealthy(), true)
    assert.equal(await again.health.ping(), true)
    await again.waitUntilReady({ readyTimeoutSeconds: 10, pollingIntervalMillis: 50 })
    await again.close()
    assert.equal((await sandbox.getMetrics()).cpuCount, 1)
    assert.ok((await sandbox.metrics.getMetrics()).memoryTotalMiB > 200)
    assert.deepEqual((await sandbox.patchMetadata({ team: null, stage: 'one' })).metadata, {
      'example.com/job': 'js',
      stage: 'one',
    })
    assert.equal((await manager.patchSandboxMetadata(sandbox.id, { stage: 'two' })).metadata.stage, 'two')
    assert.equal((await sandbox.sandboxes.patchSandboxMetadata(sandbox.id, { stage: 'three' })).metadata.stage, 'three')
    await assert.rejects(sandbox.patchMetadata({ 'opensandbox.io/x': 'y' }), code(400))
    const { expiresAt } = await sandbox.renew(3600)
    assert.ok(expiresAt.getTime() > Date.now() + 3_500_000)
    await manager.renewSandbox(sandbox.id, 1800)
    await sandbox.sandboxes.renewSandboxExpiration(sandbox.id, {
      expiresAt: new Date(Date.now() + 600_000).toISOString(),
    })
    const found = await manager.listSandboxInfos({ states: ['Running', 'Paused'], metadata: { stage: 'three' } })
    assert.deepEqual(
      found.items.map(({ id }: { id: string }) => id),
      [sandbox.id],
    )
    assert.equal((await sandbox.sandboxes.listSandboxes({ page: 1, pageSize: 1 })).pagination.pageSize, 1)
    assert.equal((await sandbox.sandboxes.getSandbox(sandbox.id)).id, sandbox.id)
    await assert.rejects(manager.getSandboxInfo('nosuchsandbox'), code(404))
  })

  test('commands, in the foreground and in the background, and sessions', async () => {
    const seen: string[] = []
    const handlers = { onStdout: ({ text }: { text: string }) => seen.push(text) }
    const ran = await sandbox.commands.run(
      'echo one; echo bad >&2; echo $FROM_CREATE $MORE; pwd',
      {
        workingDirectory: '/usr',
        envs: { MORE: 'too' },
      },
      handlers,
    )
    assert.deepEqual(texts(ran.logs.stdout), ['one', 'yes too', '/usr'])
    assert.deepEqual([seen, texts(ran.logs.stderr), ran.exitCode], [['one', 'yes too', '/usr'], ['bad'], 0])
    const failed = await sandbox.commands.run('exit 7')
    assert.deepEqual([failed.exitCode, failed.error.name, failed.complete], [7, 'CommandExecError', undefined])
    assert.deepEqual(texts((await sandbox.commands.run('id -u', { uid: 1000, gid: 1000 })).logs.stdout), ['1000'])
    assert.equal((await sandbox.commands.run('sleep 60', { timeoutSeconds: 1 })).exitCode, -1)
    const events: string[] = []
    for await (const event of sandbox.commands.runStream('echo streamed')) events.push(event.type)
    assert.deepEqual(events, ['init', 'stdout', 'execution_complete'])

    const { id } = await sandbox.commands.run('echo line-1; echo line-2; sleep 1000', { background: true })
    let cursor: number | undefined
    let content = ''
    await eventually(async () => {
      const logs = await sandbox.commands.getBackgroundCommandLogs(id, cursor)
      content += logs.content
      cursor = logs.cursor ?? cursor
      return content.includes('line-2') ? true : undefined
    }, 'its lines have come')
    assert.equal(content, 'line-1\nline-2\n')
    assert.equal((await sandbox.commands.getCommandStatus(id)).running, true)
    await sandbox.commands.interrupt(id)
    const ended = await sandbox.commands.getCommandStatus(id)
    assert.deepEqual([ended.running, ended.exitCode], [false, -1])

    const session = await sandbox.commands.createSession({ workingDirectory: '/tmp' })
    await sandbox.commands.runInSession(session, 'export KEPT=here; cd /var')
    const { logs } = await sandbox.commands.runInSession(session, 'echo $KEPT; pwd')
    assert.deepEqual(texts(logs.stdout), ['here', '/var'])
    const types: string[] = []
    for await (const event of sandbox.commands.runInSessionStream(session, 'true')) types.push(event.type)
    assert.deepEqual(types, ['init', 'execution_complete'])
    await sandbox.commands.deleteSession(session)
    await assert.rejects(sandbox.commands.runInSession(session, 'true'), code(404))
  })

  test('files and directories', async () => {
    const { files } = sandbox
    await files.createDirectories([{ path: '/tmp/js/sub', mode: 750 }])
    const stream = async function* () {
      yield new TextEncoder().encode('streamed')
    }
    await files.writeFiles([
      { path: '/tmp/js/a.txt', data: 'a=1\nb=2\n', mode: 640 },
      { path: '/tmp/js/b.bin', data: new Uint8Array([0, 255]), mode: 600 },
      { path: '/tmp/js/sub/c.txt', data: stream(), mode: 644 },
    ])
    assert.equal(await files.readFile('/tmp/js/a.txt'), 'a=1\nb=2\n')
    assert.deepEqual([...(await files.readBytes('/tmp/js/b.bin'))], [0, 255])
    assert.equal(Buffer.from(await files.readBytes('/tmp/js/a.txt', { range: 'bytes=4-6' })).toString(), 'b=2')
    const parts: Uint8Array[] = []
    for await (const part of files.readBytesStream('/tmp/js/sub/c.txt')) parts.push(part)
    assert.equal(Buffer.concat(parts).toString(), 'streamed')
    const info = (await files.getFileInfo(['/tmp/js/a.txt']))['/tmp/js/a.txt']
    assert.deepEqual([info.size, info.mode, info.owner, info.type], [8, 640, 'root', 'file'])
    await files.setPermissions([{ path: '/tmp/js/a.txt', mode: 600, owner: 'nobody' }])
    assert.equal((await files.getFileInfo(['/tmp/js/a.txt']))['/tmp/js/a.txt'].owner, 'nobody')
    await files.replaceContents([{ path: '/tmp/js/a.txt', oldContent: 'a=1', newContent: 'a=one' }])
    assert.deepEqual(
      await files.replaceContentsDetailed([{ path: '/tmp/js/a.txt', oldContent: '=', newContent: ':' }]),
      [{ path: '/tmp/js/a.txt', replacedCount: 2 }],
    )
    await files.moveFiles([{ src: '/tmp/js/a.txt', dest: '/tmp/js/sub/a.txt' }])
    const paths = (entries: { path: string }[]) => entries.map(({ path }) => path)
    assert.deepEqual(paths(await files.search({ path: '/tmp/js', pattern: '*.txt' })), [
      '/tmp/js/sub/a.txt',
      '/tmp/js/sub/c.txt',
    ])
    assert.deepEqual(paths(await files.listDirectory({ path: '/tmp/js', depth: 1 })), ['/tmp/js/b.bin', '/tmp/js/sub'])
    await files.deleteFiles(['/tmp/js/b.bin'])
    await files.deleteDirectories(['/tmp/js'])
    await assert.rejects(files.getFileInfo(['/tmp/js']), code(404))
    await assert.rejects(files.readFile('/tmp/js/a.txt'), code(404))
  })

  test('snapshots of files, and sandboxes made from them', async () => {
    await sandbox.files.writeFiles([{ path: '/root/kept', data: 'kept' }])
    const taken = await manager.createSnapshot(sandbox.id, { name: 'Before the change' })
    assert.deepEqual([taken.sandboxId, taken.name, taken.status.state], [sandbox.id, 'Before the change', 'Creating'])
    const ready = await eventually(async () => {
      const now = await manager.getSnapshot(taken.id)
      return now.status.state === 'Ready' ? now : undefined
    }, 'the snapshot is ready')
    assert.equal(ready.status.reason, 'snapshot_ready')
    const from = await create({ image: undefined, snapshotId: taken.id })
    assert.equal(await from.files.readFile('/root/kept'), 'kept')
    assert.equal((await from.getInfo()).snapshotId, taken.id)
    const listed = await manager.listSnapshots({ sandboxId: sandbox.id, name: 'Before the change', states: ['Ready'] })
    assert.equal(listed.pagination.totalItems, 1)
    const other = await sandbox.sandboxes.createSnapshot(sandbox.id)
    await eventually(
      async () => ((await sandbox.sandboxes.getSnapshot(other.id)).status.state === 'Ready' ? true : undefined),
      'the other is ready',
    )
    assert.equal((await sandbox.sandboxes.listSnapshots({ sandboxId: sandbox.id })).items.length, 2)
    await sandbox.sandboxes.deleteSnapshot(other.id)
    await manager.deleteSnapshot(taken.id)
    await eventually(async () => manager.getSnapshot(taken.id).then(() => undefined, code(404)), 'the snapshot is gone')
    await from.kill()
  })

  test('pause and resume, in every way', async () => {
    const { id } = await sandbox.commands.run('until [ -e /tmp/stop ]; do sleep 0.1; done; echo stopped', {
      background: true,
    })
    const paused = () =>
      eventually(async () => ((await state(sandbox.id)) === 'Paused' ? true : undefined), 'it is paused')
    await sandbox.pause()
    await paused()
    const resumed = await sandbox.resume()
    await resumed.commands.run('touch /tmp/stop')
    await eventually(
      async () => ((await resumed.commands.getCommandStatus(id)).running ? undefined : true),
      'the command went on',
    )
    assert.equal((await resumed.commands.getBackgroundCommandLogs(id)).content, 'stopped\n')
    await manager.pauseSandbox(sandbox.id)
    await paused()
    await (await client.Sandbox.resume({ sandboxId: sandbox.id })).close()
    await resumed.sandboxes.pauseSandbox(sandbox.id)
    await paused()
    await manager.resumeSandbox(sandbox.id)
    await resumed.sandboxes.resumeSandbox(sandbox.id)
    await resumed.waitUntilReady({ readyTimeoutSeconds: 30, pollingIntervalMillis: 50 })
  })

  test('endpoints lead to ports, with a token where the sandbox is secured', async () => {
    const serve = (box: typeof sandbox) =>
      box.commands.run('cd /etc && exec python3 -m http.server 8000', { background: true })
    const answers = async (url: string, headers: Record<string, string> = {}) =>
      eventually(async () => {
        const { status } = await fetch(`${url}/hostname`, { headers })
        return status === 502 ? undefined : status
      }, 'the port answers')
    await serve(sandbox)
    assert.equal(await answers(await sandbox.getEndpointUrl(8000)), 200)
    const secured = await create({ secureAccess: true })
    await serve(secured)
    const { endpoint, headers } = await secured.getEndpoint(8000)
    assert.equal(await answers(`http://${endpoint}`, headers), 200)
    assert.equal(await answers(`http://${endpoint}`), 403)
    secured.sandboxes.invalidateEndpointCache(secured.id)
    const execd = await secured.sandboxes.getSandboxEndpoint(secured.id, 44_772, true)
    assert.equal((await fetch(`http://${execd.endpoint}/ping`)).status, 401)
    assert.equal((await fetch(`http://${execd.endpoint}/ping`, { headers: execd.headers })).status, 200)
    await assert.rejects(secured.getSignedEndpoint(8000, Math.floor(Date.now() / 1000) + 60), code(400))
    await assert.rejects(secured.sandboxes.getSignedEndpoint(secured.id, 8000, 2_000_000_000), code(400))
    await secured.kill()
  })

  test('what is not there says so', async () => {
    assert.deepEqual(await sandbox.getEgressPolicy(), { defaultAction: 'deny', egress: [] })
    assert.deepEqual(await sandbox.credentialVault.getPolicy(), { defaultAction: 'deny', egress: [] })
    for (const target of [
      sandbox.patchEgressRules.bind(sandbox),
      sandbox.credentialVault.patchRules.bind(sandbox.credentialVault),
    ]) {
      await target([{ action: 'deny', target: 'example.com' }])
      await assert.rejects(target([{ action: 'allow', target: 'example.com' }]), code(501))
    }
    await sandbox.deleteEgressRules(['example.com'])
    await sandbox.credentialVault.deleteRules(['example.com'])
    await assert.rejects(sandbox.credentialVault.get(), code(501))
    assert.equal((await sandbox.isolation.capabilities()).available, false)
    await assert.rejects(sandbox.isolation.list(), /501/)
    await assert.rejects(create({ volumes: [{ name: 'v', host: { path: '/srv' }, mountPath: '/v' }] }), code(400))
    await assert.rejects(create({ networkPolicy: { egress: [{ action: 'allow', target: 'a.example' }] } }), code(400))
    await assert.rejects(create({ entrypoint: ['no-such-program'], readyTimeoutSeconds: 3 }))
  })

  test('the parts that the client is put together from', async () => {
    const config = new client.ConnectionConfig().withTransportIfMissing()
    const lifecycleBaseUrl = config.getBaseUrl()
    const factory = client.createDefaultAdapterFactory()
    const { sandboxes } = factory.createLifecycleStack({ connectionConfig: config, lifecycleBaseUrl })
    const made = await sandboxes.createSandbox({
      image: { uri: image },
      entrypoint: ['sleep', '1000'],
      resourceLimits: SIZE,
    })
    assert.equal(made.status.state, 'Pending')
    assert.equal(made.expiresAt, null)
    const { endpoint } = await sandboxes.getSandboxEndpoint(made.id, 44_772)
    const { health } = factory.createExecdStack({ connectionConfig: config, execdBaseUrl: `http://${endpoint}` })
    await eventually(async () => ((await health.ping().catch(() => false)) ? true : undefined), 'it answers')
    const { egress } = factory.createEgressStack({ connectionConfig: config, egressBaseUrl: `http://${endpoint}` })
    assert.equal((await egress.getPolicy()).defaultAction, 'deny')
    await sandboxes.deleteSandbox(made.id)
    await config.closeTransport()
    const execution = { logs: { stdout: [], stderr: [] }, result: [] }
    await new client.ExecutionEventDispatcher(execution).dispatch({ type: 'init', text: '1', timestamp: 1 })
    const { id } = await create()
    await sandbox.sandboxes.deleteSandbox(id)
    await manager.killSandbox((await create()).id)
    await eventually(
      async () =>
        state(id).then(
          () => undefined,
          () => true,
        ),
      'it is gone',
    )
  })

  test('every call of the client is tried, or listed with what differs', async () => {
    await manager.close()
    await checkCompatibility('npm @alibaba-group/opensandbox 0.1.11', calls.list, OPENSANDBOX_JS)
  })
})

suite('the OpenSandbox client for Python', { timeout: SUITE_MS }, () => {
  test('every call of the client is tried, or listed with what differs', async () => {
    const calls = await pythonProgram(['opensandbox'], ['opensandbox_calls.py'], { IMAGE: image })
    await checkCompatibility('PyPI opensandbox 1.1.1', calls, OPENSANDBOX_PYTHON)
  })
})
