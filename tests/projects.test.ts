import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { BASE_IMAGE, baseImageFile } from '@icebox/node'
import { Icebox, isIceboxError, type Sandbox } from '@icebox/sdk'
import { buildBase, output, ServerProcess } from './server-process.ts'

interface Schema {
  $ref?: string
  type?: string
  properties?: Record<string, Schema>
  items?: Schema
  minItems?: number
  enum?: unknown[]
  const?: unknown
  anyOf?: Schema[]
  oneOf?: Schema[]
  allOf?: Schema[]
  format?: string
  pattern?: string
  minimum?: number
}
interface Operation {
  operationId: string
  security?: unknown[]
  parameters?: { name: string; in: string; required?: boolean; schema: Schema }[]
  requestBody?: { content: Record<string, { schema: Schema }> }
}
interface Document {
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, Schema> }
}

const ICEBOX = join(import.meta.dirname, '../icebox')

let server: ServerProcess
let document: Document
/** Two projects and their clients. */
let [mine, theirs]: { key: string; icebox: Icebox }[] = []
/** What the other project has. */
let sandbox: Sandbox
let ids: Record<'sandbox' | 'snapshot' | 'template' | 'image' | 'key', string>

before(async () => {
  server = await ServerProcess.start('projects')
  document = JSON.parse(await readFile(join(import.meta.dirname, '../docs/reference/openapi.json'), 'utf8'))
  const image = await server.icebox.images.pull(BASE_IMAGE)
  await server.icebox.templates.build({ name: 'shared', image: image.digest, size: { memoryMiB: 128 }, public: true })
  await buildBase(server.icebox, { memoryMiB: 128 })
  const open = async (project: string) => {
    const { key, id } = await server.icebox.keys.create({ project })
    return { key, id, icebox: new Icebox({ url: server.icebox.url, apiKey: key }) }
  }
  const other = await open('theirs')
  theirs = other
  mine = await open('mine')
  const pulled = await other.icebox.images.import(createReadStream(baseImageFile()), { label: 'base' })
  await other.icebox.templates.build({ name: 'own', image: pulled.digest, size: { memoryMiB: 128 } })
  sandbox = await other.icebox.sandboxes.create({ template: 'own', name: 'their-box' })
  await output(sandbox.exec(['sh', '-c', 'echo theirs > /tmp/mark']))
  const snapshot = await sandbox.snapshot({ name: 'their-snapshot' })
  ids = { sandbox: sandbox.id, snapshot: snapshot.id, template: 'own', image: pulled.id, key: other.id }
})
after(() => server[Symbol.asyncDispose]())

interface Answer {
  status: number
  text: string
}

/** node:http, since fetch sends no Upgrade. */
function call(
  method: string,
  path: string,
  options: { key?: string; json?: unknown; upgrade?: boolean },
): Promise<Answer> {
  const { key, json, upgrade = false } = options
  const url = new URL(path, server.icebox.url)
  const headers: http.OutgoingHttpHeaders = { prefer: 'wait=30' }
  if (key !== undefined) headers['x-api-key'] = key
  if (json !== undefined) headers['content-type'] = 'application/json'
  if (upgrade) Object.assign(headers, { connection: 'Upgrade', upgrade: 'tcp' })
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers, agent: false })
    request.on('error', reject)
    request.on('upgrade', (response, socket) => {
      socket.destroy()
      resolve({ status: response.statusCode ?? 0, text: '' })
    })
    request.on('response', async (response) => {
      let text = ''
      for await (const piece of response.setEncoding('utf8')) text += piece
      resolve({ status: response.statusCode ?? 0, text })
    })
    request.end(json === undefined ? undefined : JSON.stringify(json))
  })
}

/** A value that fits the schema, with the other project's things where it names some. */
function sample(schema: Schema, name = ''): unknown {
  if (schema.$ref !== undefined)
    return sample(document.components.schemas[schema.$ref.split('/').at(-1) ?? ''] ?? {}, name)
  if (schema.const !== undefined) return schema.const
  if (schema.enum !== undefined) return schema.enum[0]
  const [alternative] = schema.anyOf ?? schema.oneOf ?? schema.allOf ?? []
  if (alternative !== undefined) return sample(alternative, name)
  if (name === 'snapshotId') return ids.snapshot
  switch (schema.type) {
    case 'object':
      return Object.fromEntries(
        Object.entries(schema.properties ?? {}).map(([key, property]) => [key, sample(property, key)]),
      )
    case 'array':
      return (schema.minItems ?? 0) > 0 ? [sample(schema.items ?? {})] : []
    case 'integer':
    case 'number':
      return Math.max(schema.minimum ?? 1, 1)
    case 'boolean':
      return false
    case 'string': {
      if (schema.format === 'date-time') return new Date(Date.now() + 3_600_000).toISOString()
      const fits = ['/a', 'a', 'AAAA', '1', 'SIGHUP'].find((text) => new RegExp(schema.pattern ?? '').test(text))
      return fits ?? assert.fail(`no sample for ${name}: ${schema.pattern}`)
    }
    default:
      return undefined
  }
}

const operations = (): { method: string; path: string; operation: Operation }[] =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
  )

/** The path with the other project's ids in it. */
function pathOf(path: string, { parameters = [] }: Operation): string {
  const kind = path.split('/')[2] ?? ''
  const whole: Record<string, string> = {
    sandboxes: ids.sandbox,
    snapshots: ids.snapshot,
    templates: ids.template,
    images: ids.image,
    keys: ids.key,
  }
  let first = true
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const id = first ? whole[kind] : undefined
    first = false
    const parameter = parameters.find((each) => each.in === 'path' && each.name === name)
    return id ?? String(sample(parameter?.schema ?? {}, name))
  })
  const query = parameters.filter((each) => each.in === 'query' && each.required === true)
  return `${filled}?${new URLSearchParams(query.map((each) => [each.name, String(sample(each.schema, each.name))]))}`
}

/** Routes without an id in their path that are not plain lists, and what they answer to another project's key. */
const WITHOUT_ID: Record<string, 'open' | 'refused' | 'makes'> = {
  getHealth: 'open',
  getInfo: 'open',
  getOpenApi: 'open',
  collect: 'open',
  reportEvent: 'open',
  shutdown: 'refused',
  createKey: 'refused',
  listKeys: 'refused',
  getMetrics: 'refused',
  createSandbox: 'makes',
  buildTemplate: 'makes',
  pullImage: 'makes',
  importImage: 'makes',
  importSnapshot: 'makes',
}

test('no route gives or does anything with what another project has', async () => {
  for (const { method, path, operation } of operations()) {
    const { operationId, requestBody } = operation
    const what = `${method} ${path} (${operationId})`
    const effect = WITHOUT_ID[operationId]
    if (effect === 'makes') continue
    const schema = requestBody?.content['application/json']?.schema
    const answer = await call(method, pathOf(path, operation), {
      key: mine?.key ?? '',
      upgrade: operationId === 'openPort',
      ...(schema === undefined ? {} : { json: sample(schema) }),
    })
    const shown = `${what} answered ${answer.status} ${answer.text.slice(0, 300)}`
    if (effect === 'refused' || path.startsWith('/v1/keys/')) {
      assert.equal(answer.status, 403, shown)
    } else if (path.includes('{')) {
      assert.equal(answer.status, 404, shown)
      assert.equal(JSON.parse(answer.text).code, 'NotFound', shown)
    } else {
      assert.ok(answer.status === 200 || (effect === 'open' && answer.status === 204), shown)
      if (effect === undefined) {
        const list = JSON.parse(answer.text)
        assert.deepEqual(Array.isArray(list) ? list : list.items, [], `${shown}: not an empty list, and no word here`)
      }
      assert.ok(![ids.sandbox, ids.snapshot, ids.image].some((id) => answer.text.includes(id)), shown)
    }
  }
  assert.equal(await output(sandbox.exec(['cat', '/tmp/mark'])), 'theirs')
  assert.equal((await theirs?.icebox.snapshots.list())?.length, 1)
  assert.equal((await theirs?.icebox.templates.list())?.length, 1)
})

test('nor can a sandbox be made of it, by id or by name', async () => {
  for (const source of [{ template: ids.template }, { snapshot: ids.snapshot }, { snapshot: 'their-snapshot' }])
    await assert.rejects(
      async () => mine?.icebox.sandboxes.create(source),
      (error) => isIceboxError(error, 'NotFound'),
      JSON.stringify(source),
    )
})

test('without a key nothing but health answers', async () => {
  for (const { method, path, operation } of operations()) {
    const { status, text } = await call(method, pathOf(path, operation), {
      upgrade: operation.operationId === 'openPort',
    })
    const open = operation.security?.length === 0
    assert.equal(status, open ? 200 : 401, `${method} ${path}: ${text}`)
    assert.equal(open, operation.operationId === 'getHealth')
  }
  for (const path of ['/', '/v1/nothing', '/favicon.ico']) assert.equal((await call('GET', path, {})).status, 401)
})

test('a public template serves every project, another one only its own', async () => {
  assert.ok(mine)
  await using own = await mine.icebox.sandboxes.create({ template: 'shared' })
  assert.equal(await output(own.exec(['echo', 'hi'])), 'hi')
  assert.equal(own.resource.project, 'mine')
  assert.equal(own.resource.lastSnapshotId, undefined, 'it leads to a snapshot of another project')
  await own.pause()
  await own.resume()
  assert.deepEqual(
    (await mine.icebox.sandboxes.list()).map(({ id }) => id),
    [own.id],
  )
  await assert.rejects(server.icebox.sandboxes.connect(own.id), (error) => isIceboxError(error, 'NotFound'))
  await assert.rejects(mine.icebox.sandboxes.create({ template: 'base' }), (error) => isIceboxError(error, 'NotFound'))
  assert.equal((await mine.icebox.templates.get('shared')).public, true)
  await assert.rejects(mine.icebox.templates.get('base'), (error) => isIceboxError(error, 'NotFound'))
  await assert.rejects(mine.icebox.templates.delete('shared'), (error) => isIceboxError(error, 'NotFound'))
})

test('files of the machine, and bootstraps on it, are images of the installation only', async () => {
  const neighbour = await server.icebox.keys.create({ project: 'default' })
  const others = [mine?.key ?? '', neighbour.key].map((apiKey) => new Icebox({ url: server.icebox.url, apiKey }))
  const secret = join(server.dataDirectory, 'key')
  const local = ['dir:/etc', 'tar:/etc/passwd', 'oci:/tmp', 'docker-archive:/etc/passwd', `tar:${secret}`]
  const isForbidden = (error: unknown) => isIceboxError(error, 'Forbidden')
  for (const icebox of others)
    for (const reference of [...local, 'debian:bookworm+hello']) {
      await assert.rejects(icebox.images.pull(reference), isForbidden, reference)
      await assert.rejects(icebox.sandboxes.create({ image: reference }), isForbidden, reference)
      await assert.rejects(icebox.templates.build({ name: 'thief', image: reference }), isForbidden, reference)
    }
  for (const reference of [`dir:${server.dataDirectory}`, `tar:${secret}`, 'dir:/'])
    await assert.rejects(server.icebox.images.pull(reference), isForbidden, reference)
  await server.icebox.keys.revoke(neighbour.id)
})

test('what was asked for with the key of the installation stays so over a crash', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-root-'))
  try {
    await promisify(execFile)('tar', ['--extract', '--file', baseImageFile(), '--directory', directory])
    await writeFile(join(directory, 'mark'), 'mine')
    const key = (await readFile(join(server.dataDirectory, 'key'), 'utf8')).trim()
    const accepted = await fetch(`${server.icebox.url}/v1/sandboxes`, {
      method: 'POST',
      headers: { 'x-api-key': key, 'content-type': 'application/json' },
      body: JSON.stringify({ image: { uri: `dir:${directory}` }, resourceLimits: { memory: '128Mi' } }),
    })
    assert.equal(accepted.status, 202)
    const { id } = JSON.parse(await accepted.text())
    await server.kill()
    await server.restart()
    await using made = await server.icebox.sandboxes.connect(id)
    assert.equal(await output(made.exec(['cat', '/mark'])), 'mine')
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
})

test('a key is of a project that is named', async () => {
  const key = (await readFile(join(server.dataDirectory, 'key'), 'utf8')).trim()
  for (const json of [{}, { label: 'no project' }, undefined])
    assert.equal((await call('POST', '/v1/keys', { key, ...(json === undefined ? {} : { json }) })).status, 400)
})

test('a key opens its project until it is taken back, also over a restart, and is kept nowhere', async () => {
  const { key, id, hint, ...made } = await server.icebox.keys.create({ project: 'brief', label: 'for the test' })
  assert.match(key, /^e2b_[0-9a-f]{40}$/)
  assert.ok(key.startsWith(hint))
  assert.deepEqual([made.project, made.label], ['brief', 'for the test'])
  const info = async () => {
    const { version, driver, ...said } = await new Icebox({ url: server.icebox.url, apiKey: key }).info()
    assert.ok(version.length > 0 && driver.length > 0)
    return said
  }
  assert.deepEqual(await info(), { project: 'brief', installation: false })
  await server.down('keep')
  for (const file of ['icebox.db', 'icebox.db-wal', 'server.log']) {
    const bytes = await readFile(join(server.dataDirectory, file)).catch(() => Buffer.alloc(0))
    assert.equal(bytes.includes(key), false, `${file} has the key`)
  }
  await server.restart()
  assert.deepEqual(await info(), { project: 'brief', installation: false })
  // Where it stands on its machine is told to nobody else.
  const all = await server.icebox.info()
  assert.deepEqual([all.installation, all.dataDirectory, all.pid], [true, server.dataDirectory, server.pid])
  const down = promisify(execFile)(ICEBOX, ['down', '--json', '--url', server.icebox.url], {
    env: { ...process.env, ICEBOX_API_KEY: key },
  })
  await assert.rejects(down, /Forbidden/)
  const listed = (await server.icebox.keys.list()).find((each) => each.id === id)
  assert.equal(listed?.hint, hint)
  assert.ok(!JSON.stringify(await server.icebox.keys.list()).includes(key))
  await server.icebox.keys.revoke(id)
  await assert.rejects(info(), (error) => isIceboxError(error, 'Unauthorized'))
  await assert.rejects(server.icebox.keys.revoke(id), (error) => isIceboxError(error, 'NotFound'))
})

test('the image of a public template of another project stays as long as a sandbox is being made of it', async () => {
  const { key } = await server.icebox.keys.create({ project: 'third' })
  const third = new Icebox({ url: server.icebox.url, apiKey: key })
  for (let each = 0; each < 5; each += 1) {
    const creation = third.sandboxes.create({ template: 'shared' })
    let isMade = false
    const done = () => {
      isMade = true
    }
    creation.then(done, done)
    let refusals = 0
    while (!isMade) {
      const error = await third.images.delete(ids.image).catch((thrown: unknown) => thrown)
      if (isIceboxError(error, 'InUse')) refusals += 1
      else assert.ok(error === undefined || isIceboxError(error, 'NotFound'), String(error))
    }
    const sandbox = await creation
    assert.ok(refusals > 0)
    assert.deepEqual(
      (await third.images.list()).map(({ id }) => id),
      [ids.image],
    )
    await sandbox.pause()
    await sandbox.resume()
    await sandbox.delete()
  }
})
