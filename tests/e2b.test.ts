import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { DEFAULT_PROJECT } from '@icebox/model'
import { BASE_IMAGE } from '@icebox/node'
import { openServer, type Server } from '@icebox/server'
import { withinSpace } from '@icebox/snapshot'
import { KEY, openParts, type Parts } from './faults/parts.ts'
import { eventually } from './server-process.ts'

/** E2B's REST API over a whole Icebox, called as E2B's clients call it. */

let directory: string
let parts: Parts
let server: Server
let otherKey: string

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'icebox-e2b-'))
  parts = await openParts(directory)
  server = await openServer({
    control: parts.control,
    listen: { host: '127.0.0.1', port: 0 },
    info: { version: 'test', driver: parts.node.driver.name, dataDirectory: parts.data.path, pid: process.pid },
    temporaryDirectory: parts.data.tmp,
    withinSpace,
    log: { write: () => undefined },
    onShutdown: () => undefined,
  })
  const template = { name: 'base', image: BASE_IMAGE, size: { memoryMiB: 256, diskMiB: 512 }, env: {}, public: true }
  const build = await parts.project.templates.build(
    { ...template, startCommand: ['sh', '-c', 'echo begun; echo of start >&2; sleep 100000'] },
    () => undefined,
    AbortSignal.timeout(300_000),
  )
  await build.settled
  otherKey = (await parts.control.keys.create({ project: 'other', label: '' })).key
})
after(async () => {
  await server?.close(AbortSignal.timeout(10_000))
  await parts?.control.close('kill', AbortSignal.timeout(60_000))
  await parts?.data.close()
  await rm(directory, { recursive: true, force: true })
})

interface Answer<T> {
  status: number
  headers: Headers
  body: T
}
interface Started {
  sandboxID: string
  templateID: string
  clientID: string
  envdVersion: string
  alias?: string
  envdAccessToken?: string
  trafficAccessToken?: string
  domain?: string | null
}
interface Detail extends Started {
  state: string
  startedAt: string
  endAt: string
  cpuCount: number
  memoryMB: number
  diskSizeMB: number
  metadata: Record<string, string>
  allowInternetAccess: boolean | null
  network: Record<string, unknown>
  lifecycle: { autoResume: boolean; onTimeout: string }
}
interface Failure {
  code: number
  message: string
  error_code?: string
}
interface SnapshotShown {
  snapshotID: string
  names: string[]
}

interface Call {
  json?: unknown
  key?: string
  headers?: Record<string, string>
}

async function send<T>(method: string, path: string, { json, key = KEY, headers }: Call = {}): Promise<Answer<T>> {
  const response = await fetch(server.url + path, {
    method,
    headers: { 'x-api-key': key, ...(json === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(json === undefined ? {} : { body: JSON.stringify(json) }),
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, body: text === '' ? undefined : JSON.parse(text) }
}

/** The body of an answer that must have this status. */
async function expect<T>(status: number, method: string, path: string, call: Call = {}): Promise<T> {
  const answer = await send<T>(method, path, call)
  assert.equal(answer.status, status, `${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
  return answer.body
}

/** The error of a call that must be refused with this status, in E2B's shape. */
async function refused(status: number, method: string, path: string, call: Call = {}): Promise<Failure> {
  const failure = await expect<Failure>(status, method, path, call)
  assert.equal(failure.code, status)
  assert.ok(failure.message.length > 0)
  return failure
}

const create = (body: object = {}, call: Call = {}): Promise<Started> =>
  expect(201, 'POST', '/v2/sandboxes', { json: { templateID: 'base', ...body }, ...call })
const show = (id: string): Promise<Detail> => expect(200, 'GET', `/sandboxes/${id}`)
const kill = (...ids: string[]) => Promise.all(ids.map((id) => expect(204, 'DELETE', `/sandboxes/${id}`)))

/** What a script in a sandbox prints. */
async function sh(id: string, script: string): Promise<string> {
  const response = await fetch(`${server.url}/v1/sandboxes/${id}/execs`, {
    method: 'POST',
    headers: { 'x-api-key': KEY, 'content-type': 'application/json' },
    body: JSON.stringify({ argv: ['sh', '-c', script] }),
  })
  const lines: { stream?: string; data?: string }[] = (await response.text())
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  return lines
    .filter(({ stream }) => stream === 'stdout')
    .map(({ data = '' }) => Buffer.from(data, 'base64').toString())
    .join('')
}

/** Waits until a sandbox is in the state, or gone (undefined). */
async function until(id: string, state: string | undefined): Promise<void> {
  for (;;) {
    const { status, body } = await send<Detail>('GET', `/sandboxes/${id}`)
    if ((status === 404 ? undefined : body.state) === state) return
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

describe('what is not there', () => {
  it('answers in the shape of E2B: without a key, of other areas, of other methods', async () => {
    for (const path of ['/sandboxes', '/v2/sandboxes', '/templates/x', '/snapshots', '/teams', '/v3/x']) {
      const { status, body } = await send<Failure>('GET', path, { key: 'e2b_00' })
      assert.deepEqual([status, body.code], [401, 401], path)
    }
    for (const path of ['/teams', '/volumes/v1', '/secrets', '/api-keys', '/access-tokens/1', '/nodes', '/admin/x/y'])
      await refused(404, 'GET', path)
    await refused(404, 'PUT', '/sandboxes/x')
    await refused(404, 'GET', '/v3/sandboxes')
    await refused(404, 'DELETE', '/snapshots')
    await refused(400, 'GET', '/sandboxes/%zz')
  })

  it('takes the key as bearer, too', async () => {
    await expect(200, 'GET', '/sandboxes', { key: '', headers: { authorization: `Bearer ${KEY}` } })
  })

  it('says that templates are not built here', async () => {
    for (const [method, path] of [
      ['POST', '/v3/templates'],
      ['POST', '/v2/templates'],
      ['POST', '/templates'],
      ['POST', '/templates/base'],
      ['GET', '/templates/base/files/0'],
      ['POST', '/v2/templates/base/builds/1'],
      ['GET', '/templates/base/builds/1/status'],
      ['GET', '/templates/base/builds/1/logs'],
    ] as const) {
      const { error_code, message } = await refused(400, method, path, method === 'GET' ? {} : { json: { name: 'x' } })
      assert.equal(error_code, 'not_implemented')
      assert.match(message, /icebox template build/)
    }
  })

  it('is unknown ids and templates', async () => {
    const unknown = 'a'.repeat(20)
    for (const id of ['x', unknown, 'base']) {
      await refused(404, 'GET', `/sandboxes/${id}`)
      await refused(404, 'DELETE', `/sandboxes/${id}`)
      await refused(404, 'POST', `/sandboxes/${id}/pause`)
      await refused(404, 'POST', `/sandboxes/${id}/connect`, { json: { timeout: 10 } })
      await refused(404, 'POST', `/v2/sandboxes/${id}/connect`)
      await refused(404, 'POST', `/sandboxes/${id}/resume`)
      await refused(404, 'POST', `/sandboxes/${id}/fork`)
      await refused(404, 'POST', `/sandboxes/${id}/snapshots`)
      await refused(404, 'POST', `/sandboxes/${id}/timeout`, { json: { timeout: 10 } })
      await refused(404, 'POST', `/sandboxes/${id}/refreshes`)
      await refused(404, 'PUT', `/sandboxes/${id}/network`, { json: {} })
      await refused(404, 'GET', `/sandboxes/${id}/metrics`)
      await refused(404, 'GET', `/sandboxes/${id}/logs`)
      await refused(404, 'GET', `/v2/sandboxes/${id}/logs`)
    }
    for (const templateID of ['nope', 'base:v1', 'elsewhere/base', unknown, `${unknown}:default`, 'a b'])
      assert.match(
        (await refused(404, 'POST', '/v2/sandboxes', { json: { templateID } })).message,
        /template '.*' not found/,
      )
  })
})

describe('create', () => {
  it('gives a secured sandbox on the new path, and one as asked for on the old', async () => {
    const first = await create({ metadata: { a: 'b' }, envVars: { GREETING: 'hi' }, timeout: 60 })
    assert.match(first.sandboxID, /^[a-z][a-z0-9]{19}$/)
    assert.deepEqual([first.templateID, first.alias], ['base', 'base'])
    assert.match(first.envdVersion, /^\d+\.\d+\.\d+$/)
    assert.ok(first.envdAccessToken !== undefined && first.envdAccessToken.length >= 32)
    assert.equal(first.trafficAccessToken, undefined)
    assert.equal(first.domain, `localhost:${new URL(server.url).port}`)
    assert.equal(await sh(first.sandboxID, 'echo $GREETING'), 'hi\n')

    const detail = await show(first.sandboxID)
    assert.equal(detail.state, 'running')
    assert.deepEqual([detail.cpuCount, detail.memoryMB, detail.diskSizeMB], [1, 256, 512])
    assert.deepEqual(detail.metadata, { a: 'b' })
    assert.deepEqual(detail.lifecycle, { autoResume: false, onTimeout: 'kill' })
    assert.equal(detail.envdAccessToken, first.envdAccessToken)
    assert.equal(detail.allowInternetAccess, false)
    assert.equal(detail.network.allowPublicTraffic, true)
    const seconds = (Date.parse(detail.endAt) - Date.parse(detail.startedAt)) / 1000
    assert.ok(seconds > 50 && seconds < 70, String(seconds))

    const json = {
      templateID: 'default/base',
      timeout: 60,
      network: { allowPublicTraffic: false, denyOut: ['10.0.0.0/8'] },
    }
    const second = await expect<Started>(201, 'POST', '/sandboxes', { json })
    assert.equal(second.envdAccessToken, undefined)
    assert.ok(second.trafficAccessToken)
    assert.deepEqual((await show(second.sandboxID)).network, { allowPublicTraffic: false, denyOut: ['10.0.0.0/8'] })
    const third = await expect<Started>(201, 'POST', '/sandboxes', { json: { templateID: 'base', secure: true } })
    assert.ok(third.envdAccessToken)
    assert.notEqual(third.envdAccessToken, first.envdAccessToken)
    await kill(first.sandboxID, second.sandboxID, third.sandboxID)
  })

  it('gives 300 s on the new path and 15 s on the old when nothing is said', async () => {
    const [newer, older] = await Promise.all([
      create(),
      expect<Started>(201, 'POST', '/sandboxes', { json: { templateID: 'base' } }),
    ])
    const left = async ({ sandboxID }: Started) => {
      const { startedAt, endAt } = await show(sandboxID)
      return Math.round((Date.parse(endAt) - Date.parse(startedAt)) / 1000)
    }
    assert.equal(await left(newer), 300)
    assert.equal(await left(older), 15)
    await kill(newer.sandboxID, older.sandboxID)
  })

  it('with no time left ends at once, and so does a resume; who connects takes nothing away', async () => {
    const { sandboxID } = await create({ timeout: 300 })
    const { endAt } = await show(sandboxID)
    await expect(200, 'POST', `/sandboxes/${sandboxID}/connect`, { json: { timeout: 0 } })
    assert.equal((await show(sandboxID)).endAt, endAt)
    await expect(204, 'POST', `/sandboxes/${sandboxID}/pause`)
    await expect(201, 'POST', `/sandboxes/${sandboxID}/resume`, { json: { timeout: 0 } })
    const { sandboxID: brief } = await create({ timeout: 0 })
    for (const each of [sandboxID, brief]) await until(each, undefined)
  })

  it('is refused when it asks for what cannot be, and leaves nothing', async () => {
    for (const [wrong, names] of [
      [{ timeout: -1 }, 'timeout'],
      [{ timeout: 2_592_001 }, 'timeout'],
      [{ timeout: 'long' }, 'timeout'],
      [{ autoPause: true, autoPauseMemory: false, autoResume: { enabled: true } }, 'autoResume'],
      [{ volumeMounts: [{ name: 'v', path: '/v' }] }, 'volumeMounts'],
      [{ iam: { tokens: { a: { audience: 'x', tokenType: 'y' } } } }, 'iam'],
      [{ mcp: { server: {} } }, 'mcp'],
      [{ metadata: { a: 1 } }, 'metadata'],
      [{ templateID: 7 }, 'templateID'],
    ] as const)
      for (const path of ['/sandboxes', '/v2/sandboxes'])
        assert.ok(
          (await refused(400, 'POST', path, { json: { templateID: 'base', ...wrong } })).message.includes(names),
          names,
        )
    await refused(400, 'POST', '/v2/sandboxes', { headers: { 'content-type': 'application/json' } })
    const huge = { templateID: 'base', metadata: { a: 'x'.repeat(2_000_000) } }
    await refused(413, 'POST', '/v2/sandboxes', { json: huge })
    assert.deepEqual(await expect(200, 'GET', '/v2/sandboxes'), [])
  })

  it('repeated with the same Idempotency-Key makes one sandbox', async () => {
    const call = { headers: { 'idempotency-key': 'create-1' } }
    const [first, second] = await Promise.all([create({}, call), create({}, call)])
    assert.equal(second.sandboxID, first.sandboxID)
    await refused(409, 'POST', '/v2/sandboxes', { json: { templateID: 'base', timeout: 77 }, ...call })
    await kill(first.sandboxID)
  })
})

describe('another project', () => {
  it('sees nothing of this one, whatever it asks', async () => {
    const { sandboxID } = await create()
    const { snapshotID } = await expect<SnapshotShown>(201, 'POST', `/sandboxes/${sandboxID}/snapshots`, {
      json: { name: 'mine' },
    })
    const other = { key: otherKey }
    for (const [method, path, json] of [
      ['GET', '', undefined],
      ['DELETE', '', undefined],
      ['POST', '/pause', {}],
      ['POST', '/resume', {}],
      ['POST', '/connect', { timeout: 10 }],
      ['POST', '/fork', {}],
      ['POST', '/snapshots', {}],
      ['POST', '/timeout', { timeout: 10 }],
      ['POST', '/refreshes', {}],
      ['PUT', '/network', {}],
      ['GET', '/metrics', undefined],
      ['GET', '/logs', undefined],
    ] as const)
      await refused(404, method, `/sandboxes/${sandboxID}${path}`, { ...other, json })
    await refused(404, 'POST', `/v2/sandboxes/${sandboxID}/connect`, other)
    await refused(404, 'GET', `/v2/sandboxes/${sandboxID}/logs`, other)
    await refused(404, 'POST', '/v2/sandboxes', { ...other, json: { templateID: snapshotID } })
    await refused(404, 'POST', '/v2/sandboxes', { ...other, json: { templateID: 'mine' } })
    await refused(404, 'DELETE', `/templates/${encodeURIComponent(snapshotID)}`, other)
    await refused(404, 'DELETE', '/templates/base', other)
    for (const path of ['/sandboxes', '/v2/sandboxes', '/snapshots', '/templates', '/v2/templates'])
      assert.deepEqual(await expect(200, 'GET', path, other), [], path)
    assert.deepEqual(await expect(200, 'GET', `/sandboxes/metrics?sandbox_ids=${sandboxID}`, other), { sandboxes: {} })
    await show(sandboxID)

    // But the template is public.
    assert.deepEqual(await expect(200, 'GET', '/templates/aliases/base', other), { templateID: 'base', public: true })
    const { sandboxID: theirs } = await create({}, other)
    await refused(404, 'GET', `/sandboxes/${theirs}`)
    await expect(204, 'DELETE', `/sandboxes/${theirs}`, other)
    await expect(204, 'DELETE', `/templates/${encodeURIComponent(snapshotID)}`)
    await kill(sandboxID)
  })
})

describe('pause, connect and resume', () => {
  it('pause once or together, and come back under the same id with files and processes', async () => {
    const { sandboxID, envdAccessToken } = await create()
    const boot = await sh(sandboxID, 'echo kept > /tmp/file; cat /proc/sys/kernel/random/boot_id')
    const pauses = await Promise.all([1, 2, 3].map(() => send('POST', `/sandboxes/${sandboxID}/pause`, { json: {} })))
    assert.deepEqual(
      pauses.map(({ status }) => status),
      [204, 204, 204],
    )
    assert.equal((await show(sandboxID)).state, 'paused')
    await refused(409, 'POST', `/sandboxes/${sandboxID}/pause`)
    await refused(409, 'POST', `/sandboxes/${sandboxID}/fork`)
    await refused(409, 'PUT', `/sandboxes/${sandboxID}/network`, { json: {} })
    await refused(409, 'POST', `/sandboxes/${sandboxID}/timeout`, { json: { timeout: 10 } })
    assert.deepEqual(await expect(200, 'GET', `/sandboxes/${sandboxID}/metrics`), [])

    const resumed = await expect<Started>(201, 'POST', `/sandboxes/${sandboxID}/connect`, { json: { timeout: 100 } })
    assert.deepEqual([resumed.sandboxID, resumed.envdAccessToken], [sandboxID, envdAccessToken])
    assert.equal((await show(sandboxID)).state, 'running')
    assert.equal(await sh(sandboxID, 'cat /tmp/file'), 'kept\n')
    assert.equal(await sh(sandboxID, 'cat /proc/sys/kernel/random/boot_id'), boot)
    await kill(sandboxID)
    await refused(404, 'POST', `/sandboxes/${sandboxID}/pause`)
    await refused(404, 'POST', `/v2/sandboxes/${sandboxID}/connect`)
    await refused(404, 'POST', `/sandboxes/${sandboxID}/fork`)
  })

  it('connect to what runs only ever moves its end away', async () => {
    const { sandboxID } = await create({ timeout: 200 })
    const { endAt } = await show(sandboxID)
    await expect(200, 'POST', `/v2/sandboxes/${sandboxID}/connect`, { json: { timeout: 20 } })
    assert.equal((await show(sandboxID)).endAt, endAt)
    await expect(200, 'POST', `/v2/sandboxes/${sandboxID}/connect`)
    const extended = Date.parse((await show(sandboxID)).endAt)
    assert.ok(extended > Date.parse(endAt) + 50_000)
    await expect(204, 'POST', `/sandboxes/${sandboxID}/refreshes`, { json: { duration: 10 } })
    assert.equal(Date.parse((await show(sandboxID)).endAt), extended)
    await expect(204, 'POST', `/sandboxes/${sandboxID}/refreshes`, { json: { duration: 600 } })
    assert.ok(Date.parse((await show(sandboxID)).endAt) > extended + 200_000)
    await expect(204, 'POST', `/sandboxes/${sandboxID}/timeout`, { json: { timeout: 50 } })
    assert.ok(Date.parse((await show(sandboxID)).endAt) < extended)
    for (const timeout of [-1, 2_592_001])
      await refused(400, 'POST', `/sandboxes/${sandboxID}/connect`, { json: { timeout } })
    await refused(400, 'POST', `/sandboxes/${sandboxID}/connect`)
    await refused(400, 'POST', `/sandboxes/${sandboxID}/timeout`, { json: { timeout: 2_592_001 } })
    await refused(400, 'POST', `/sandboxes/${sandboxID}/refreshes`, { json: { duration: 3601 } })
    await kill(sandboxID)
  })

  it('connects at the same time return only once it runs; resumes are answered 201 or 409', async () => {
    const { sandboxID } = await create()
    await expect(204, 'POST', `/sandboxes/${sandboxID}/pause`)
    const connects = await Promise.all(
      [1, 2, 3].map(async () => {
        const { status } = await send('POST', `/v2/sandboxes/${sandboxID}/connect`)
        return { status, state: (await show(sandboxID)).state }
      }),
    )
    for (const { status, state } of connects) assert.ok((status === 201 || status === 200) && state === 'running')
    assert.ok(connects.some(({ status }) => status === 201))
    await expect(204, 'POST', `/sandboxes/${sandboxID}/pause`)
    const resumes = await Promise.all(
      [1, 2, 3].map(() => send('POST', `/sandboxes/${sandboxID}/resume`, { json: { timeout: 60, autoPause: true } })),
    )
    for (const { status } of resumes) assert.ok(status === 201 || status === 409, String(status))
    assert.ok(resumes.some(({ status }) => status === 201))
    await refused(409, 'POST', `/sandboxes/${sandboxID}/resume`)
    assert.equal((await show(sandboxID)).lifecycle.onTimeout, 'pause')
    await kill(sandboxID)
  })

  it('without memory keep the files and boot again', async () => {
    const { sandboxID } = await create()
    const boot = await sh(sandboxID, 'echo kept > /root/file; cat /proc/sys/kernel/random/boot_id')
    await expect(204, 'POST', `/sandboxes/${sandboxID}/pause`, { json: { memory: false } })
    await expect(201, 'POST', `/v2/sandboxes/${sandboxID}/connect`, { json: { memory: false } })
    assert.equal(await sh(sandboxID, 'cat /root/file'), 'kept\n')
    assert.notEqual(await sh(sandboxID, 'cat /proc/sys/kernel/random/boot_id'), boot)
    await expect(204, 'POST', `/sandboxes/${sandboxID}/pause`)
    assert.match(
      (await refused(400, 'POST', `/v2/sandboxes/${sandboxID}/connect`, { json: { memory: false } })).message,
      /memory/,
    )
    await kill(sandboxID)
    await refused(404, 'GET', `/sandboxes/${sandboxID}`)
  })

  it('at the end of their time are killed, or paused with what they are', async () => {
    const [mortal, pausing] = await Promise.all([
      create({ timeout: 5 }),
      create({ timeout: 5, autoPause: true, autoResume: { enabled: true } }),
    ])
    assert.deepEqual((await show(pausing.sandboxID)).lifecycle, { autoResume: true, onTimeout: 'pause' })
    await until(mortal.sandboxID, undefined)
    // On its way out it is a conflict.
    const connect = () => send<Failure>('POST', `/v2/sandboxes/${mortal.sandboxID}/connect`)
    let refusal = await connect()
    while (refusal.status === 409) refusal = await connect()
    assert.deepEqual([refusal.status, refusal.body.code], [404, 404])
    for (const cycle of ['1', '2']) {
      await until(pausing.sandboxID, 'paused')
      await expect(201, 'POST', `/v2/sandboxes/${pausing.sandboxID}/connect`, { json: { timeout: 60 } })
      assert.equal(
        await sh(pausing.sandboxID, `cat /root/file; echo ${cycle} >> /root/file`),
        cycle === '1' ? '' : '1\n',
      )
      await expect(204, 'POST', `/sandboxes/${pausing.sandboxID}/timeout`, { json: { timeout: 0 } })
    }
    await until(pausing.sandboxID, 'paused')
    await kill(pausing.sandboxID)
  })
})

describe('fork', () => {
  it('gives sandboxes of their own that are of the same template; the source runs on', async () => {
    const source = await create({ metadata: { team: 'a' }, timeout: 100 })
    const { endAt } = await show(source.sandboxID)
    await sh(source.sandboxID, 'echo forked > /tmp/file')
    const children: Started[] = []
    for (const count of [undefined, 2]) {
      const results = await expect<{ sandbox: Started }[]>(201, 'POST', `/sandboxes/${source.sandboxID}/fork`, {
        json: count === undefined ? {} : { count, timeout: 60 },
      })
      assert.equal(results.length, count ?? 1)
      children.push(...results.map(({ sandbox }) => sandbox))
    }
    const all = [source, ...children]
    assert.equal(new Set(all.map(({ sandboxID }) => sandboxID)).size, 4)
    assert.equal(new Set(all.map(({ envdAccessToken }) => envdAccessToken)).size, 4)
    for (const child of children) {
      assert.equal(child.templateID, source.templateID)
      assert.equal(await sh(child.sandboxID, 'cat /tmp/file'), 'forked\n')
    }
    assert.equal((await show(source.sandboxID)).endAt, endAt)
    for (const wrong of [{ count: 0 }, { count: 101 }, { timeout: -1 }])
      await refused(400, 'POST', `/sandboxes/${source.sandboxID}/fork`, { json: wrong })
    await kill(...all.map(({ sandboxID }) => sandboxID))
  })
})

describe('snapshots', () => {
  it('without a name are named by their id', async () => {
    const { sandboxID } = await create()
    await sh(sandboxID, 'echo saved > /tmp/file')
    const shown = await expect<SnapshotShown>(201, 'POST', `/sandboxes/${sandboxID}/snapshots`, { json: {} })
    assert.match(shown.snapshotID, /^[a-z0-9]{20}:default$/)
    assert.deepEqual(shown.names, [])
    assert.deepEqual(await expect(200, 'GET', `/snapshots?sandboxID=${sandboxID}`), [shown])
    const made = await create({ templateID: shown.snapshotID })
    assert.equal(await sh(made.sandboxID, 'cat /tmp/file'), 'saved\n')
    assert.equal(`${made.templateID}:default`, shown.snapshotID)
    await expect(204, 'DELETE', `/templates/${encodeURIComponent(shown.snapshotID)}`)
    await refused(404, 'DELETE', `/templates/${encodeURIComponent(shown.snapshotID)}`)
    await refused(404, 'POST', '/v2/sandboxes', { json: { templateID: shown.snapshotID } })
    assert.deepEqual(await expect(200, 'GET', '/snapshots'), [])
    await kill(sandboxID, made.sandboxID)
  })

  it('with a name are builds of one template: the same name again replaces, a tag makes another', async () => {
    const { sandboxID } = await create()
    const take = (name: string) =>
      expect<SnapshotShown>(201, 'POST', `/sandboxes/${sandboxID}/snapshots`, { json: { name } })
    await sh(sandboxID, 'echo 1 > /root/file')
    const first = await take('My_Snap')
    assert.deepEqual(first, { snapshotID: 'default/my_snap:default', names: ['default/my_snap'] })
    await sh(sandboxID, 'echo 2 > /root/file')
    assert.deepEqual(await take('default/my_snap'), first)
    await sh(sandboxID, 'echo 3 > /root/file')
    const tagged = await take('my_snap:v1')
    assert.deepEqual(tagged, { snapshotID: 'default/my_snap:v1', names: ['default/my_snap'] })

    const made = await Promise.all(
      ['my_snap', first.snapshotID, 'my_snap:v1'].map((templateID) => create({ templateID })),
    )
    const [plain, byId, byTag] = await Promise.all(made.map(({ sandboxID: id }) => sh(id, 'cat /root/file')))
    assert.deepEqual([plain, byId, byTag], ['2\n', '2\n', '3\n'])
    assert.deepEqual(new Set(made.map(({ templateID }) => templateID)), new Set(['my_snap']))
    await refused(404, 'POST', '/v2/sandboxes', { json: { templateID: 'my_snap:v2' } })

    const list = (query: string) => expect<SnapshotShown[]>(200, 'GET', `/snapshots?${query}`)
    assert.deepEqual(await list(`sandboxID=${sandboxID}`), [tagged, first])
    assert.deepEqual(await list('name=my_snap'), [tagged, first])
    assert.deepEqual(await list('name=default%2Fmy_snap%3Av1'), [tagged])
    for (const none of ['name=my_snap:v2', 'name=other', 'name=else/my_snap', `sandboxID=${'z'.repeat(20)}`])
      assert.deepEqual(await list(none), [], none)
    const page = await send<SnapshotShown[]>('GET', '/snapshots?limit=1')
    assert.deepEqual(page.body, [tagged])
    const next = page.headers.get('x-next-token')
    const rest = await send<SnapshotShown[]>('GET', `/snapshots?limit=1&nextToken=${next}`)
    assert.deepEqual([rest.body, rest.headers.get('x-next-token')], [[first], null])
    await refused(400, 'GET', '/snapshots?nextToken=nonsense')
    await refused(400, 'GET', '/snapshots?limit=0')

    const template = await expect<{ templateID: string; builds: unknown[] }>(200, 'GET', '/templates/my_snap')
    assert.deepEqual([template.templateID, template.builds.length], ['my_snap', 2])
    assert.deepEqual(await expect(200, 'GET', '/templates/aliases/my_snap'), { templateID: 'my_snap', public: false })
    for (const name of ['base', 'a b', 'a/b/c', 'elsewhere/x', ''])
      await refused(name === 'base' ? 409 : 400, 'POST', `/sandboxes/${sandboxID}/snapshots`, { json: { name } })

    // Tags move to the build they are given to.
    const tags = async () =>
      (await expect<{ tag: string; buildID: string }[]>(200, 'GET', '/templates/my_snap/tags'))
        .map(({ tag, buildID }) => [tag, buildID] as const)
        .sort()
    const before = new Map(await tags())
    assert.deepEqual([...before.keys()], ['default', 'v1'])
    const assigned = { target: 'my_snap:default', tags: ['v1', 'stable'] }
    const { buildID } = await expect<{ buildID: string }>(201, 'POST', '/templates/tags', { json: assigned })
    assert.equal(buildID, before.get('default'))
    assert.deepEqual(
      await tags(),
      ['default', 'stable', 'v1'].map((tag) => [tag, buildID]),
    )
    await expect(204, 'DELETE', '/templates/tags', { json: { name: 'my_snap', tags: ['stable'] } })
    await refused(404, 'DELETE', '/templates/tags', { json: { name: 'my_snap', tags: ['stable'] } })
    await refused(404, 'POST', '/templates/tags', { json: { target: 'my_snap:none', tags: ['x'] } })
    await refused(400, 'POST', '/templates/tags', { json: { target: 'base:default', tags: ['x'] } })

    await expect(204, 'DELETE', '/templates/my_snap')
    await refused(404, 'GET', '/templates/my_snap')
    await kill(sandboxID, ...made.map(({ sandboxID: id }) => id))
    const left = await list('')
    for (const { snapshotID } of left) await expect(204, 'DELETE', `/templates/${encodeURIComponent(snapshotID)}`)
  })
})

describe('lists', () => {
  it('filter by state, metadata, template and time, in parts that hold still', async () => {
    const ids: string[] = []
    const text = 'a=b&c d+e%/ü'
    for (const n of [0, 1, 2])
      ids.push((await create({ metadata: { n: String(n), [text]: text, all: 'yes' }, timeout: 200 })).sandboxID)
    const [first = '', second = '', third = ''] = ids
    await expect(204, 'POST', `/sandboxes/${first}/pause`)
    const list = async (query = ''): Promise<string[]> =>
      (await expect<Detail[]>(200, 'GET', `/v2/sandboxes${query}`)).map(({ sandboxID }) => sandboxID)

    assert.deepEqual(await list(), [third, second, first])
    assert.deepEqual(await list('?order=asc'), [first, second, third])
    assert.deepEqual(await list('?state=paused'), [first])
    assert.deepEqual(await list('?state=running'), [third, second])
    assert.deepEqual(await list('?state=running,paused'), [third, second, first])
    assert.deepEqual(await list('?state=running&state=paused'), [third, second, first])
    assert.deepEqual(
      (await expect<Detail[]>(200, 'GET', '/sandboxes')).map(({ sandboxID }) => sandboxID),
      [third, second],
    )
    assert.deepEqual(await list(`?metadata=${encodeURIComponent('n=1')}`), [second])
    assert.deepEqual(await list(`?metadata=${encodeURIComponent('n=1&all=yes')}`), [second])
    assert.deepEqual(await list(`?metadata=${encodeURIComponent('n=1&all=no')}`), [])
    // As E2B's clients encode: each part, the pairs, and the query.
    const pairs = new URLSearchParams({ [encodeURIComponent(text)]: encodeURIComponent(text) }).toString()
    assert.equal((await list(`?metadata=${encodeURIComponent(pairs)}`)).length, 3)
    await refused(400, 'GET', '/v2/sandboxes?metadata=nonsense')
    await refused(400, 'GET', '/v2/sandboxes?metadata=%25zz%3D1')
    await refused(400, 'GET', '/v2/sandboxes?state=dead')
    await refused(400, 'GET', '/v2/sandboxes?limit=101')
    assert.deepEqual(await list('?template=base'), [third, second, first])
    assert.deepEqual(await list('?template=default/base'), [third, second, first])
    assert.deepEqual(await list('?template=other'), [])
    const { startedAt } = await show(second)
    assert.deepEqual(await list(`?startedAfter=${encodeURIComponent(startedAt)}`), [third, second])

    const page = await send<Detail[]>('GET', '/v2/sandboxes?limit=2')
    assert.deepEqual(
      page.body.map(({ sandboxID }) => sandboxID),
      [third, second],
    )
    assert.equal(page.headers.get('x-total-running'), '2')
    // What was listed goes, and something new comes: the next part is what it was.
    await kill(third)
    ids.push((await create()).sandboxID)
    const next = await send<Detail[]>('GET', `/v2/sandboxes?limit=2&nextToken=${page.headers.get('x-next-token')}`)
    assert.deepEqual(
      next.body.map(({ sandboxID }) => sandboxID),
      [first],
    )
    assert.equal(next.headers.get('x-next-token'), null)
    assert.equal((await send('GET', '/v2/sandboxes?state=paused')).headers.get('x-total-running'), null)
    await kill(...ids.filter((id) => id !== third))
  })
})

describe('settings and readings', () => {
  it('keep network settings to be shown', async () => {
    const { sandboxID } = await create({
      network: { allowPublicTraffic: false, maskRequestHost: 'x', allowOut: ['a.b'] },
    })
    await expect(204, 'PUT', `/sandboxes/${sandboxID}/network`, { json: { denyOut: ['0.0.0.0/0'] } })
    assert.deepEqual((await show(sandboxID)).network, {
      allowPublicTraffic: false,
      maskRequestHost: 'x',
      denyOut: ['0.0.0.0/0'],
    })
    await refused(400, 'PUT', `/sandboxes/${sandboxID}/network`, { json: { denyOut: 'all' } })
    const mask = { network: { maskRequestHost: 'a\r\nX: b' } }
    await refused(400, 'POST', '/sandboxes', { json: { templateID: 'base', ...mask } })
    const { body: native } = await send<{ id: string }>('POST', '/v1/sandboxes', {
      json: { template: 'base', network: { allowOut: 7, maskRequestHost: 'a\r\nX: b' }, publicTraffic: true },
      headers: { prefer: 'wait=60' },
    })
    assert.deepEqual((await show(native.id)).network, { allowPublicTraffic: true })
    const port = await send<{ message: string }>('GET', `/v1/sandboxes/${native.id}/proxy/9/`)
    assert.deepEqual([port.status, port.body.message], [502, 'The sandbox is running but port is not open'])
    await kill(sandboxID, native.id)
  })

  it('tell what is used', async () => {
    const { sandboxID } = await create()
    const metrics = await expect<Record<string, number>[]>(200, 'GET', `/sandboxes/${sandboxID}/metrics`)
    const metric = metrics.at(-1)
    assert.ok(metric !== undefined)
    assert.equal(metric.memTotal, 256 * 1024 * 1024)
    assert.equal(metric.diskTotal, 512 * 1024 * 1024)
    assert.ok((metric.memUsed ?? 0) > 0 && (metric.cpuUsedPct ?? -1) >= 0 && metric.cpuCount === 1)
    assert.deepEqual(await expect(200, 'GET', `/sandboxes/${sandboxID}/metrics?start=1&end=2`), [])
    const { sandboxes } = await expect<{ sandboxes: Record<string, unknown> }>(
      200,
      'GET',
      `/sandboxes/metrics?sandbox_ids=${sandboxID},${'z'.repeat(20)}`,
    )
    assert.deepEqual(Object.keys(sandboxes), [sandboxID])
    await refused(400, 'GET', '/sandboxes/metrics')
    await kill(sandboxID)
  })

  it('tell what the start command wrote', async () => {
    const { sandboxID } = await create()
    interface Entry {
      message: string
      level: string
    }
    const { lines, logEntries } = await eventually(async () => {
      const told = await expect<{ logs: { line: string }[]; logEntries: Entry[] }>(
        200,
        'GET',
        `/sandboxes/${sandboxID}/logs`,
      )
      const lines = told.logs.map(({ line }): string => JSON.parse(line).message)
      return lines.includes('begun') && lines.includes('of start') ? { lines, ...told } : undefined
    }, 'what it wrote is kept')
    assert.deepEqual(
      logEntries.map(({ message }) => message),
      lines,
    )
    const newer = async (query: string) =>
      (await expect<{ logs: Entry[] }>(200, 'GET', `/v2/sandboxes/${sandboxID}/logs?${query}`)).logs.map(
        ({ message }) => message,
      )
    assert.deepEqual(await newer(''), lines)
    assert.deepEqual(await newer('direction=backward'), lines.toReversed())
    assert.deepEqual(await newer('limit=1'), lines.slice(0, 1))
    assert.deepEqual(await newer('limit=1&direction=backward'), lines.slice(-1))
    assert.deepEqual(await newer('search=begu'), ['begun'])
    assert.deepEqual(await newer('cursor=99999999999999'), [])
    await refused(400, 'GET', `/v2/sandboxes/${sandboxID}/logs?limit=1001`)
    await kill(sandboxID)
  })
})

describe('templates', () => {
  it('are listed, shown and deleted', async () => {
    interface Template {
      templateID: string
      buildID: string
      names: string[]
      aliases: string[]
      public: boolean
      buildStatus: string
    }
    const [template, ...more] = await expect<Template[]>(200, 'GET', '/templates')
    assert.equal(more.length, 0)
    assert.deepEqual(
      [template?.templateID, template?.names, template?.aliases, template?.public, template?.buildStatus],
      ['base', [`${DEFAULT_PROJECT}/base`], ['base'], true, 'ready'],
    )
    assert.deepEqual(await expect(200, 'GET', '/v2/templates?limit=5'), [template])
    const shown = await expect<{ builds: { buildID: string; status: string }[] }>(200, 'GET', '/templates/base')
    assert.deepEqual(
      shown.builds.map(({ buildID, status }) => [buildID, status]),
      [[template?.buildID, 'ready']],
    )
    const tags = await expect<{ tag: string; buildID: string }[]>(200, 'GET', '/templates/base/tags')
    assert.deepEqual(
      tags.map(({ tag, buildID }) => [tag, buildID]),
      [['default', template?.buildID]],
    )
    for (const path of ['/templates/none', '/templates/aliases/none', '/templates/none/tags', '/templates/base%3Av1'])
      await refused(404, 'GET', path)
    await refused(404, 'DELETE', '/templates/none')
    for (const isPublic of [false, true]) {
      const json = { public: isPublic }
      await refused(404, 'PATCH', '/v2/templates/base', { json, key: otherKey })
      assert.deepEqual(await expect(200, 'PATCH', '/v2/templates/base', { json }), { names: ['default/base'] })
      await expect(isPublic ? 200 : 404, 'GET', '/templates/aliases/base', { key: otherKey })
    }
    await expect(204, 'DELETE', '/templates/base')
    assert.deepEqual(await expect(200, 'GET', '/templates'), [])
    await refused(404, 'POST', '/v2/sandboxes', { json: { templateID: 'base' } })
  })
})
