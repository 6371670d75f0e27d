import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { IceboxError, isError } from '@icebox/model'
import { quiet, sha256, soon, tarOf, temporaryDirectory } from '../fixture.ts'
import type { SourceSettings } from '../source-policy.ts'
import { openImageStore } from '../store.ts'

/** A registry that a tenant runs, and a service of the server's network that it wants to get at. */

const directory = temporaryDirectory()
const TENANT = { project: 'tenant', installation: false }
const OTHER = { project: 'other', installation: false }
const OPERATOR = { project: 'default', installation: true }
type Handler = (asked: IncomingMessage, answer: ServerResponse) => void

let registry: Server
let inside: Server
/** The same at an address that is listed, at a port that is not. */
let beside: Server
let answerOf: Handler = (_, answer) => answer.end()
/** What came to the service inside. */
let reached: string[] = []
let told: string[] = []
let stores = 0

before(async () => {
  registry = createServer((asked, answer) => answerOf(asked, answer)).listen(0, '127.0.0.1')
  // Another address of this machine, which is not listed.
  const serve: Handler = (asked, answer) => {
    reached.push(`${asked.method} ${asked.url} ${asked.headers.authorization}`)
    answer.end('{"token":"inside"}')
  }
  inside = createServer(serve).listen(0, '127.7.7.7')
  beside = createServer(serve).listen(0, '127.0.0.1')
  await Promise.all([registry, inside, beside].map((server) => once(server, 'listening')))
  const docker = join(directory, 'docker')
  mkdirSync(docker)
  const auth = Buffer.from('operator:secret').toString('base64')
  writeFileSync(join(docker, 'config.json'), JSON.stringify({ auths: { [hostOf(registry)]: { auth } } }))
  process.env.DOCKER_CONFIG = docker
})
after(() => {
  delete process.env.DOCKER_CONFIG
  for (const server of [registry, inside, beside]) {
    server.closeAllConnections()
    server.close()
  }
})
beforeEach(() => {
  reached = []
  told = []
})

const portOf = (server: { address(): unknown }): number => (server.address() as AddressInfo).port
const hostOf = (server: Server): string => `127.0.0.1:${portOf(server)}`
const service = () => `http://127.7.7.7:${portOf(inside)}`

const newStore = (settings: SourceSettings = {}) =>
  openImageStore({
    directory: join(directory, `store-${stores++}`),
    cacheDirectory: join(directory, 'cache'),
    sources: { registries: [hostOf(registry)], onUnreachable: (_, { message }) => told.push(message), ...settings },
  })

async function failure(reference: string, store = newStore(), by = TENANT): Promise<IceboxError> {
  const thrown = await store.pullAs(by, reference, quiet, soon()).then(
    () => assert.fail(`${reference} was pulled`),
    (error: unknown) => error,
  )
  assert.ok(thrown instanceof IceboxError, String(thrown))
  return thrown
}

/** Serves one image of one layer, unless a path is answered otherwise. */
async function image(name: string, otherwise: (path: string, answer: ServerResponse) => boolean = () => false) {
  const layer = await tarOf([{ name, content: name }])
  const config = Buffer.from(
    JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [sha256(layer)] } }),
  )
  const describe = (bytes: Buffer, mediaType: string) => ({ mediaType, digest: sha256(bytes), size: bytes.length })
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: describe(config, 'application/vnd.oci.image.config.v1+json'),
      layers: [describe(layer, 'application/vnd.oci.image.layer.v1.tar')],
    }),
  )
  const blobs = new Map([layer, config, manifest].map((bytes) => [sha256(bytes), bytes]))
  const handler: Handler = ({ url = '' }, answer) => {
    if (otherwise(url, answer)) return
    answer.end(url.includes('/manifests/') ? manifest : blobs.get(url.slice(url.lastIndexOf('/') + 1)))
  }
  return { handler, layer: sha256(layer) }
}

test('no redirect and no realm leads to an address that is not listed, and nothing is told of what is there', async () => {
  const reference = `${hostOf(registry)}/a:1`
  const ways: [string, Handler][] = [
    ['redirect', (_, answer) => answer.writeHead(307, { location: `${service()}/secret` }).end()],
    ['realm', (_, answer) => answer.writeHead(401, { 'www-authenticate': `Bearer realm="${service()}/t"` }).end()],
    [
      'mapped',
      (_, answer) => answer.writeHead(307, { location: `http://[::ffff:127.7.7.7]:${portOf(inside)}/` }).end(),
    ],
    ['another port', (_, answer) => answer.writeHead(307, { location: `http://localhost:${portOf(beside)}/` }).end()],
    ['tls', (_, answer) => answer.writeHead(307, { location: `https://127.7.7.7:${portOf(inside)}/` }).end()],
    ['metadata', (_, answer) => answer.writeHead(307, { location: 'https://169.254.169.254/latest' }).end()],
  ]
  const texts = new Set<string>()
  for (const [way, handler] of ways) {
    answerOf = handler
    const { code, message, details } = await failure(reference)
    assert.equal(code, 'RegistryUnreachable', way)
    texts.add(`${message} ${JSON.stringify(details)}`)
    // The operator may know.
    const why = await failure(reference, newStore(), OPERATOR)
    assert.match(why.message, /not allowed|protected by TLS/, way)
  }
  assert.equal(texts.size, 1)
  assert.deepEqual(reached, [])
  assert.equal(told.length, 2 * ways.length)
})

test('whatever keeps a registry from being used, its project is told the same', async () => {
  const closed = createTcpServer().listen(0, '127.0.0.1')
  await once(closed, 'listening')
  const nobody = portOf(closed)
  closed.close()
  await once(closed, 'close')
  const mute = createTcpServer((socket) => socket.destroy()).listen(0, '127.0.0.1')
  await once(mute, 'listening')
  try {
    const answers: [string, Handler][] = [
      ['no page', (_, answer) => answer.writeHead(404, { 'content-type': 'text/html' }).end('<html>')],
      ['a page', (_, answer) => answer.writeHead(200, { 'content-type': 'text/html' }).end('<html>')],
      ['forbidden', (_, answer) => answer.writeHead(403).end()],
      ['no challenge', (_, answer) => answer.writeHead(401).end()],
      ['redirects without end', (asked, answer) => answer.writeHead(302, { location: asked.url }).end()],
    ]
    const texts = new Set<string>()
    const add = async (reference: string, settings: SourceSettings = {}) => {
      const { code, message, remedy } = await failure(`${reference}/a:1`, newStore(settings))
      assert.equal(code, 'RegistryUnreachable', reference)
      texts.add(`${message} ${remedy}`.replaceAll(reference, 'REGISTRY'))
    }
    for (const [, handler] of answers) {
      answerOf = handler
      await add(hostOf(registry))
    }
    await add(`127.0.0.1:${nobody}`, { registries: ['127.0.0.1'] })
    await add(`127.7.7.7:${portOf(inside)}`)
    await add(`127.0.0.1:${portOf(mute)}`, { registries: ['127.0.0.1'] })
    await add(`127.0.0.1:${portOf(beside)}`)
    await add(`registry.invalid:${nobody}`)
    await add('[::ffff:7f07:707]:1')
    assert.deepEqual([...texts].length, 1, [...texts].join('\n'))
    assert.deepEqual(reached, [])
  } finally {
    mute.close()
  }
})

test('credentials of the operator are for the installation and for projects that are listed', async () => {
  const seen: string[] = []
  const { handler } = await image('private')
  answerOf = (asked, answer) => {
    if (asked.headers.authorization !== undefined) {
      seen.push(asked.headers.authorization)
      handler(asked, answer)
    } else answer.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
  }
  const reference = `${hostOf(registry)}/private:1`
  assert.equal((await failure(reference)).code, 'RegistryUnreachable')
  assert.deepEqual(seen, [])
  const store = newStore({ credentials: ['tenant'] })
  await store.pullAs(TENANT, reference, quiet, soon())
  await store.pullAs(OPERATOR, reference, quiet, soon())
  assert.equal((await failure(reference, store, OTHER)).code, 'RegistryUnreachable')
})

test('who may not have an image does not get it by joining the pull of one who may', async () => {
  const { handler } = await image('joined')
  const held = Promise.withResolvers<void>()
  const begun = Promise.withResolvers<void>()
  answerOf = (asked, answer) => {
    if (asked.headers.authorization === undefined)
      answer.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
    else {
      begun.resolve()
      void held.promise.then(() => handler(asked, answer))
    }
  }
  const store = newStore()
  const reference = `${hostOf(registry)}/joined:1`
  const pulling = store.pullAs(OPERATOR, reference, quiet, soon())
  await begun.promise
  assert.equal((await failure(reference, store)).code, 'RegistryUnreachable')
  held.resolve()
  await pulling
})

test('what a redirect leads to cannot ask for the credentials of the registry', async () => {
  const asked: (string | undefined)[] = []
  const elsewhere = createServer((message, answer) => {
    asked.push(message.headers.authorization)
    answer.writeHead(401, { 'www-authenticate': `Bearer realm="http://127.0.0.1:${portOf(elsewhere)}/token"` }).end()
  }).listen(0, '127.0.0.1')
  await once(elsewhere, 'listening')
  try {
    answerOf = (_, answer) => answer.writeHead(307, { location: `http://${hostOf(elsewhere)}/` }).end()
    const { code } = await failure(`${hostOf(registry)}/a:1`, newStore({ registries: ['127.0.0.1'] }), OPERATOR)
    assert.equal(code, 'RegistryUnreachable')
    assert.deepEqual(asked, [undefined])
  } finally {
    elsewhere.closeAllConnections()
    elsewhere.close()
  }
})

test('a registry that hangs keeps nobody but its own project waiting', async () => {
  const hanging = new Set<ServerResponse>()
  const slow = await image('shared', (path, answer) => {
    if (!path.endsWith(slow.layer) || !isSlow) return false
    answer.writeHead(200)
    answer.write('x')
    hanging.add(answer)
    return true
  })
  let isSlow = true
  answerOf = slow.handler
  const store = newStore()
  const ending = new AbortController()
  const pulls = Array.from({ length: 6 }, (_, i) =>
    store.pullAs(TENANT, `${hostOf(registry)}/slow:${i}`, quiet, ending.signal),
  )
  const ended = Promise.allSettled(pulls)
  while (hanging.size < 1) await once(registry, 'request')
  // The very same image, which the first has said it would bring.
  isSlow = false
  await store.pullAs(OTHER, `${hostOf(registry)}/fast:1`, quiet, soon())
  ending.abort()
  assert.ok((await ended).every(({ status }) => status === 'rejected'))
})

test('a project that asks for too much at once is refused, and no other', async () => {
  answerOf = () => {}
  const store = newStore()
  const ending = new AbortController()
  const pulls = Array.from({ length: 40 }, (_, i) =>
    store.pullAs(TENANT, `${hostOf(registry)}/x:${i}`, quiet, ending.signal),
  )
  const results = Promise.allSettled(pulls)
  await Promise.race(pulls.map((pull) => pull.catch(() => {})))
  answerOf = (await image('mine')).handler
  await store.pullAs(OTHER, `${hostOf(registry)}/mine:1`, quiet, soon())
  ending.abort()
  const refused = (await results).filter(
    (result) => result.status === 'rejected' && isError(result.reason, 'TooManyRequests'),
  )
  assert.equal(refused.length, 40 - 2 - 32)
})

test('a challenge as long as a head may be is read at once', async () => {
  const long = `Bearer ${'a'.repeat(7000)} ${'\t '.repeat(3000)}x`
  answerOf = (_, answer) => answer.writeHead(401, { 'www-authenticate': long }).end()
  assert.equal((await failure(`${hostOf(registry)}/a:1`)).code, 'RegistryUnreachable')
})
