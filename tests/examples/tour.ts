import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { type ConnectionOptions, Icebox, isIceboxError, Sandbox } from '@icebox/sdk'
import { filesBelow, tarOf, writeLayout } from '../../packages/node/src/images/fixture.ts'
import { eventually, output } from '../server-process.ts'

/** Through all of the SDK that the examples leave out, on a server with the template `base`. */
export async function tour(url: string, apiKey: string): Promise<void> {
  const icebox = new Icebox({ url, apiKey })
  await theServer(icebox)
  const { image: reference } = await icebox.templates.get('base')
  const image = await icebox.images.pull(reference)
  assert.equal((await icebox.images.get(image.id)).reference, reference)
  assert.ok((await icebox.images.list()).some(({ id }) => id === image.id))
  await sending(icebox)

  const steps: unknown[] = []
  const template = await icebox.templates.build({
    name: 'tour',
    image: reference,
    startCommand: ['sh', '-c', 'echo begun; exec sleep 100000'],
    keepSnapshots: 2,
    public: true,
    onProgress: (step) => steps.push(step),
  })
  assert.ok(steps.length > 0 && template.keepSnapshots === 2 && template.public === true)
  assert.equal((await icebox.templates.get('tour')).snapshotId, template.snapshotId)

  await using sandbox = await icebox.sandboxes.create({ template: 'tour', name: 'tour', metadata: { of: 'tour' } })
  await processes(sandbox)
  await files(sandbox)
  await life(icebox, sandbox, { url, apiKey })
  await ports(sandbox)
  await snapshots(icebox, sandbox)
  await sandbox.delete()

  await icebox.templates.delete('tour')
  await assert.rejects(icebox.images.delete(image.id), (thrown) => isIceboxError(thrown, 'InUse'))
}

async function sending(icebox: Icebox): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-tour-'))
  try {
    const digest = writeLayout(directory, [await tarOf([{ name: 'file' }])])
    const files = filesBelow(directory).map(async (file) => ({
      name: relative(directory, file),
      content: await readFile(file),
    }))
    const layout = await tarOf(await Promise.all(files))
    const sent = await icebox.images.import([layout], { kind: 'oci', name: 'latest', label: 'tour' })
    assert.equal(sent.digest, digest)
    assert.equal((await icebox.images.get('upload:tour')).id, sent.id)
    await icebox.images.delete(sent.id)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

async function theServer(icebox: Icebox): Promise<void> {
  const { version } = await icebox.health()
  const info = await icebox.info()
  assert.deepEqual([info.version, info.project, info.installation], [version, 'default', true])
  assert.ok('openapi' in (await icebox.openapi()))
  assert.match(await icebox.metrics(), /^# HELP icebox_/m)
  const key = await icebox.keys.create({ project: 'tour', label: 'tour' })
  assert.ok((await icebox.keys.list()).some(({ id }) => id === key.id))
  await icebox.keys.revoke(key.id)
  await icebox.usage({ from: '2020-01-01T00:00:00Z', to: new Date().toISOString() })
  await icebox.collect()
}

async function processes(sandbox: Sandbox): Promise<void> {
  // More than is sent ahead of what the SDK says has arrived.
  assert.equal((await sandbox.exec(['head', '-c', '1000000', '/dev/zero'])).stdout.length, 1_000_000)
  const { id } = await sandbox.spawn(['sh', '-c', 'echo out; echo err >&2; exec sleep 100000'])
  await eventually(
    async () => (await sandbox.execs()).find((each) => each.id === id && each.stderrBytes === 4),
    'it has written',
  )
  const exec = sandbox.attach(id, { stdoutFrom: 1, stderrFrom: 2 })
  await exec.started
  await exec.kill('SIGKILL')
  const { signal, stdout, stderr } = await exec
  assert.deepEqual([signal, stdout, stderr], ['SIGKILL', 'ut\n', 'r\n'])
}

async function files(sandbox: Sandbox): Promise<void> {
  const { files } = sandbox
  const at = { user: 'user' }
  assert.equal(await files.makeDirectory('work', { ...at, mode: 0o700 }), true)
  await files.write('work/a', 'text', { ...at, mode: 0o600 })
  await files.setAttributes('work/a', { mode: 0o644 }, at)
  await files.symlink('a', 'work/link', at)
  await files.move('work/a', 'work/b', at)
  assert.deepEqual(
    (await files.list('work', { ...at, depth: 2 })).map(({ name }) => name),
    ['b', 'link'],
  )
  assert.equal((await files.stat('work/b', at)).mode & 0o777, 0o644)
  const { data } = await files.readStream('work/b', { ...at, offset: 1, length: 2 })
  assert.equal(Buffer.concat(await Array.fromAsync(data)).toString(), 'ex')
  const changes = await files.watch('work', { ...at, recursive: true })
  await files.remove('work/b', at)
  for await (const change of changes) if (change.type === 'remove') break
}

async function life(icebox: Icebox, sandbox: Sandbox, server: ConnectionOptions): Promise<void> {
  assert.equal((await Sandbox.connect('tour', server)).id, sandbox.id)
  assert.ok((await sandbox.stats()).processes > 0)
  await sandbox.setMetadata({ more: 'yes' })
  const found = await icebox.sandboxes.list({ state: ['Running'], metadata: { more: 'yes' } })
  assert.deepEqual(
    found.map(({ id }) => id),
    [sandbox.id],
  )
  const { expiresAt } = await sandbox.renew({ timeout: 600 })
  assert.ok(expiresAt !== undefined)
  assert.deepEqual(await sandbox.renew({ timeout: 60, onlyExtend: true }), { expiresAt })
  await sandbox.pause({ kind: 'memory' })
  await sandbox.resume()
  const text = Buffer.concat(await Array.fromAsync(await sandbox.logs())).toString()
  assert.equal(text, 'begun\n')
  for await (const entry of sandbox.logEntries({ follow: true })) if (entry.source === 'stdout') break
  const [made] = await icebox.events.list({ resource: sandbox.id })
  assert.equal(made?.to, 'creating')
  for await (const event of icebox.events.follow({ resource: sandbox.id, after: made?.id }))
    if (event.to === 'paused') break
}

async function ports(sandbox: Sandbox): Promise<void> {
  await sandbox.spawn(['python3', '-m', 'http.server', '9000', '--directory', '/etc'])
  await output(sandbox.exec(['sh', '-c', 'until curl -so /dev/null localhost:9000; do sleep 0.05; done']))
  const { url, headers } = await sandbox.portUrl(9000, { byPath: true })
  assert.deepEqual(Object.keys(headers), ['e2b-traffic-access-token'])
  assert.equal((await fetch(`${url}/hostname`)).status, 403)
  assert.equal((await (await fetch(`${url}/hostname`, { headers })).text()).trim(), 'tour')
  const socket = await sandbox.port(9000)
  socket.end('GET /hostname HTTP/1.0\r\n\r\n')
  assert.match(Buffer.concat(await Array.fromAsync(socket)).toString(), /tour\s*$/)
}

async function snapshots(icebox: Icebox, sandbox: Sandbox): Promise<void> {
  const snapshot = await sandbox.snapshot({ name: 'tour', tags: ['v1'], kind: 'filesystem' })
  const again = await sandbox.snapshot({ name: 'tour', tags: ['v1'], replace: true })
  assert.equal((await icebox.snapshots.get('tour:v1')).id, again.id)
  const query = { sandbox: sandbox.id, name: 'tour', state: ['Ready'], hidden: true } as const
  const listed = await icebox.snapshots.list({ ...query, state: [...query.state] })
  assert.deepEqual(
    listed.map(({ id }) => id),
    [again.id],
  )
  assert.notEqual(snapshot.id, again.id)
  assert.deepEqual(await icebox.snapshots.verify(again.id), [])
  const copy = await icebox.snapshots.import(await icebox.snapshots.export(again.id), { name: 'copy' })
  await using restored = await icebox.sandboxes.create({ snapshot: copy.id, publicTraffic: true })
  assert.deepEqual((await restored.portUrl(80)).headers, {})
  assert.equal(await output(restored.exec(['echo', 'here'])), 'here')
  await restored.delete()
  for (const { id } of [copy, again]) await icebox.snapshots.delete(id)
}
