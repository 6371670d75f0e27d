import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { isError, type NodeImage } from '@icebox/model'
import { filesBelow, quiet, readManifest, sh, soon, tarOf, temporaryDirectory, writeLayout } from '../fixture.ts'
import { openImageStore } from '../store.ts'

const directory = temporaryDirectory()
const layout = join(directory, 'layout')
const dockerConfig = join(directory, 'docker')
let registry: ChildProcess
let registryPort = 0
let digest = ''
let stores = 0

/** What stands before the registry: told by each test what to do with a request; false lets it pass. */
type Rule = (asked: IncomingMessage, answer: ServerResponse) => boolean
let rule: Rule = () => false
let asked: { url: string; authorization: string | undefined; range: string | undefined }[] = []
let front: Server
let host = ''

async function freePort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

async function listen(handler: (asked: IncomingMessage, answer: ServerResponse) => void): Promise<Server> {
  const server = createServer(handler).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

const portOf = (server: Server): number => (server.address() as AddressInfo).port

async function answers(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const socket = connect(port, '127.0.0.1')
  socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
  const connected = await promise
  socket.destroy()
  return connected
}

function pass(asked: IncomingMessage, answer: ServerResponse): void {
  const { authorization: _, host: __, ...headers } = asked.headers
  const inner = request(
    { port: registryPort, path: asked.url, method: asked.method, headers, agent: false },
    (message) => {
      answer.writeHead(message.statusCode ?? 500, message.headers)
      message.pipe(answer)
    },
  )
  inner.on('error', () => answer.destroy())
  answer.on('close', () => inner.destroy())
  asked.pipe(inner)
}

before(async () => {
  const big = Buffer.alloc(3_000_000, 'a random line that compresses badly: 98f7a6sdf98')
  for (let i = 0; i < big.length; i += 7) big[i] = Math.floor(Math.random() * 256)
  const layers = [
    await tarOf([
      { name: 'etc/name', content: 'one' },
      { name: 'big', content: big },
    ]),
    await tarOf([{ name: 'etc/name', content: 'two' }]),
  ]
  digest = writeLayout(layout, layers, {
    config: { Env: ['A=b=c', 'PATH=/bin'], WorkingDir: '/etc', User: '1000:1', Cmd: ['sh'], Entrypoint: null },
  })
  registryPort = await freePort()
  const config = join(directory, 'registry.yml')
  const storage = join(directory, 'registry')
  writeFileSync(
    config,
    `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${storage}}}\nhttp: {addr: "127.0.0.1:${registryPort}"}\n`,
  )
  registry = spawn('docker-registry', ['serve', config], { stdio: 'ignore' })
  while (!(await answers(registryPort))) {
    assert.equal(registry.exitCode, null, 'docker-registry ended')
    await sleep(50)
  }
  sh(
    'skopeo',
    'copy',
    '-q',
    '--dest-tls-verify=false',
    `oci:${layout}:latest`,
    `docker://127.0.0.1:${registryPort}/team/app:1`,
  )
  front = await listen((request, answer) => {
    asked.push({ url: request.url ?? '', authorization: request.headers.authorization, range: request.headers.range })
    if (!rule(request, answer)) pass(request, answer)
  })
  host = `127.0.0.1:${portOf(front)}`
  mkdirSync(dockerConfig)
  process.env.DOCKER_CONFIG = dockerConfig
})

after(async () => {
  delete process.env.DOCKER_CONFIG
  front.closeAllConnections()
  front.close()
  registry.kill('SIGKILL')
  if (registry.exitCode === null && registry.signalCode === null) await once(registry, 'exit')
})

beforeEach(() => {
  rule = () => false
  asked = []
  writeFileSync(join(dockerConfig, 'config.json'), '{}')
})

const newStore = () => {
  const path = join(directory, `store-${stores++}`)
  const sources = { registries: ['127.0.0.0/8'] }
  return { path, store: openImageStore({ directory: path, cacheDirectory: join(directory, 'cache'), sources }) }
}
const pull = (name: string): Promise<NodeImage> => newStore().store.pull(`${host}/${name}`, quiet, soon())

/** Pulls into a store of its own, which must stay empty. */
async function refused(name: string, ...codes: Parameters<typeof isError>[1][]): Promise<string> {
  const { path, store } = newStore()
  let message = ''
  await assert.rejects(store.pull(`${host}/${name}`, quiet, soon()), (error) => {
    message = error instanceof Error ? error.message : ''
    return isError(error, ...codes)
  })
  assert.deepEqual(filesBelow(path), [])
  return message
}

const login = (entry: Record<string, unknown>) =>
  writeFileSync(join(dockerConfig, 'config.json'), JSON.stringify({ auths: { [host]: entry } }))
const basic = (user: string, password: string) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
const isBlob = (message: IncomingMessage) => message.url?.includes('/blobs/') === true
const bigLayer = () => readManifest(layout, digest).layers[0]?.digest ?? ''

test('a tag is pulled under the digest of its manifest, with its config', async () => {
  const { store } = newStore()
  const phases = new Set<string>()
  const image = await store.pull(`${host}/team/app:1`, ({ phase }) => phases.add(phase), soon())
  assert.equal(image.digest, digest)
  assert.deepEqual(image.config, {
    env: { A: 'b=c', PATH: '/bin' },
    workingDir: '/etc',
    user: '1000:1',
    entrypoint: [],
    cmd: ['sh'],
  })
  assert.deepEqual([...phases], ['resolve', 'download', 'unpack', 'erofs'])
  assert.deepEqual(await store.resolve(`${host}/team/app:1`), image)
  assert.equal((await store.resolve(digest))?.digest, digest)
  // By digest, and quick when present: no layer is fetched again.
  asked = []
  assert.equal((await store.pull(`${host}/team/app@${digest}`, quiet, soon())).digest, digest)
  assert.ok(!asked.some(({ url }) => url.includes(bigLayer())))
})

test('what is not there is not found', async () => {
  await refused('team/app:none', 'NotFound')
  await refused('team/other:1', 'NotFound')
})

test('an index gives the variant for this platform', async () => {
  const arm = join(directory, 'arm')
  writeLayout(arm, [await tarOf([{ name: 'arm' }])], { architecture: 'arm64' })
  for (const [from, name] of [
    [arm, 'arm'],
    [layout, 'amd'],
  ] as const)
    sh(
      'skopeo',
      'copy',
      '-q',
      '--dest-tls-verify=false',
      `oci:${from}:latest`,
      `docker://127.0.0.1:${registryPort}/team/app:${name}`,
    )
  const described = (path: string, architecture: string, more: object = {}) => {
    const [manifest] = JSON.parse(readFileSync(join(path, 'index.json'), 'utf8')).manifests
    return {
      mediaType: manifest.mediaType,
      digest: manifest.digest,
      size: manifest.size,
      platform: { os: 'linux', architecture, ...more },
    }
  }
  const mediaType = 'application/vnd.oci.image.index.v1+json'
  const push = async (tag: string, manifests: object[]) => {
    const url = `http://127.0.0.1:${registryPort}/v2/team/app/manifests/${tag}`
    const body = JSON.stringify({ schemaVersion: 2, mediaType, manifests })
    const answer = await fetch(url, { method: 'PUT', headers: { 'content-type': mediaType }, body })
    assert.equal(answer.status, 201, await answer.text())
  }
  await push('both', [described(arm, 'arm64'), described(layout, 'amd64')])
  assert.equal((await pull('team/app:both')).digest, digest)
  await push('arm-only', [described(arm, 'arm64', { variant: 'v8' })])
  assert.match(await refused('team/app:arm-only', 'PlatformUnsupported'), /linux\/arm64\/v8/)
  assert.match(await refused('team/app:arm', 'PlatformUnsupported'), /linux\/arm64/)
})

test('bytes that do not have their digest are refused', async () => {
  for (const which of ['manifests/sha256', 'config', 'layer']) {
    rule = (message, answer) => {
      const { config } = readManifest(layout, digest)
      const hit =
        which === 'layer'
          ? message.url?.endsWith(bigLayer())
          : which === 'config'
            ? message.url?.endsWith(config.digest)
            : message.url?.includes(which)
      if (!hit) return false
      void fetch(`http://127.0.0.1:${registryPort}${message.url}`, {
        headers: { accept: `${message.headers.accept}` },
      }).then(async (inner) => {
        const bytes = Buffer.from(await inner.arrayBuffer())
        bytes.writeUInt8(bytes.readUInt8(bytes.length - 20) ^ 1, bytes.length - 20)
        answer.writeHead(200, { 'content-length': bytes.length }).end(bytes)
      })
      return true
    }
    assert.match(await refused(`team/app@${digest}`, 'ImageInvalid'), /digest|not JSON/, which)
  }
})

test('a layer longer than its manifest says is cut off at once', async () => {
  rule = (message, answer) => {
    if (message.url?.endsWith(bigLayer()) !== true) return false
    answer.writeHead(200)
    const more = () => {
      while (!answer.destroyed && answer.write(Buffer.alloc(65_536)));
    }
    answer.on('drain', more)
    more()
    return true
  }
  assert.match(await refused('team/app:1', 'ImageInvalid'), /longer than/)
})

test('a token is fetched where the registry says, for this repository, with the credentials of docker', async () => {
  const grants: { url: string; authorization: string | undefined }[] = []
  const tokens = await listen((message, answer) => {
    grants.push({ url: message.url ?? '', authorization: message.headers.authorization })
    const allowed = message.headers.authorization === basic('me', 'pass:word')
    answer.writeHead(allowed ? 200 : 401).end(allowed ? JSON.stringify({ token: 'T1' }) : '{}')
  })
  try {
    const challenge = `Bearer realm="http://127.0.0.1:${portOf(tokens)}/token",service="a registry",scope="repository:team/app:pull"`
    rule = (message, answer) => {
      if (message.headers.authorization === 'Bearer T1') return false
      answer.writeHead(401, { 'www-authenticate': challenge }).end()
      return true
    }
    assert.match(await refused('team/app:1', 'RegistryUnreachable'), /has none for it/)
    assert.equal(grants[0]?.authorization, undefined)
    login({ auth: Buffer.from('me:wrong').toString('base64') })
    assert.match(await refused('team/app:1', 'RegistryUnreachable'), /does not accept/)
    login({ auth: Buffer.from('me:pass:word').toString('base64') })
    grants.length = 0
    assert.equal((await pull('team/app:1')).digest, digest)
    assert.equal(grants.length, 1)
    const asked_ = new URL(grants[0]?.url ?? '', 'http://x').searchParams
    assert.deepEqual([asked_.get('service'), asked_.get('scope')], ['a registry', 'repository:team/app:pull'])
    // A token that has expired is replaced on the way.
    let uses = 0
    rule = (message, answer) => {
      if (message.headers.authorization === 'Bearer T1' && uses++ !== 2) return false
      answer.writeHead(401, { 'www-authenticate': challenge }).end()
      return true
    }
    assert.equal((await pull('team/app:1')).digest, digest)
  } finally {
    tokens.close()
  }
})

test('an identity token is exchanged', async () => {
  let form = ''
  const tokens = await listen((message, answer) => {
    message.on('data', (chunk) => {
      form += chunk
    })
    message.on('end', () => answer.end(JSON.stringify({ access_token: 'T2' })))
  })
  try {
    login({ identitytoken: 'IDENTITY' })
    rule = (message, answer) => {
      if (message.headers.authorization === 'Bearer T2') return false
      answer
        .writeHead(401, { 'www-authenticate': `Bearer realm="http://localhost:${portOf(tokens)}/t",service="s"` })
        .end()
      return true
    }
    assert.equal((await pull('team/app:1')).digest, digest)
    const fields = new URLSearchParams(form)
    assert.deepEqual(
      ['grant_type', 'refresh_token', 'scope', 'service'].map((key) => fields.get(key)),
      ['refresh_token', 'IDENTITY', 'repository:team/app:pull', 's'],
    )
  } finally {
    tokens.close()
  }
})

test('user and password from the docker config file or a credential helper', async () => {
  rule = (message, answer) => {
    if (message.headers.authorization === basic('helped', 'secret')) return false
    answer.writeHead(401, { 'www-authenticate': 'Basic realm="here"' }).end()
    return true
  }
  await refused('team/app:1', 'RegistryUnreachable')
  login({ username: 'helped', password: 'secret' })
  assert.equal((await pull('team/app:1')).digest, digest)
  const bin = join(directory, 'bin')
  mkdirSync(bin)
  const helper = join(bin, 'docker-credential-test')
  const answer = JSON.stringify({ ServerURL: host, Username: 'helped', Secret: 'secret' })
  writeFileSync(
    helper,
    `#!/bin/sh\nread -r server\n[ "$1 $server" = "get ${host}" ] || { echo credentials not found in native keychain; exit 1; }\necho '${answer}'\n`,
  )
  chmodSync(helper, 0o755)
  const path = process.env.PATH
  process.env.PATH = `${bin}:${path}`
  try {
    writeFileSync(join(dockerConfig, 'config.json'), JSON.stringify({ credHelpers: { [host]: 'test' } }))
    assert.equal((await pull('team/app:1')).digest, digest)
    writeFileSync(join(dockerConfig, 'config.json'), JSON.stringify({ credsStore: 'test' }))
    assert.equal((await pull('team/app:1')).digest, digest)
    writeFileSync(join(dockerConfig, 'config.json'), JSON.stringify({ credsStore: 'missing' }))
    assert.match(await refused('team/app:1', 'RegistryUnreachable'), /docker-credential-missing/)
    writeFileSync(join(dockerConfig, 'config.json'), 'not json')
    assert.match(await refused('team/app:1', 'RegistryUnreachable'), /config\.json is not valid/)
  } finally {
    process.env.PATH = path
  }
})

test('redirects are followed without the credentials, and not away from TLS', async () => {
  const seen: (string | undefined)[] = []
  const elsewhere = await listen((message, answer) => {
    seen.push(message.headers.authorization)
    pass(message, answer)
  })
  try {
    login({ auth: Buffer.from('me:secret').toString('base64') })
    let target = `http://127.0.0.1:${portOf(elsewhere)}`
    rule = (message, answer) => {
      if (message.headers.authorization !== basic('me', 'secret')) {
        answer.writeHead(401, { 'www-authenticate': 'Basic realm="here"' }).end()
        return true
      }
      if (!isBlob(message)) return false
      answer.writeHead(307, { location: `${target}${message.url}` }).end()
      return true
    }
    assert.equal((await pull('team/app:1')).digest, digest)
    assert.ok(seen.length >= 3)
    assert.ok(seen.every((authorization) => authorization === undefined))
    target = 'http://registry.example.com'
    assert.match(await refused('team/app:1', 'RegistryUnreachable'), /not protected by TLS/)
    rule = (message, answer) => {
      answer.writeHead(302, { location: message.url }).end()
      return true
    }
    assert.match(await refused('team/app:1', 'RegistryUnreachable'), /redirects without end/)
  } finally {
    elsewhere.close()
  }
})

test('what fails for a moment is tried again, and what broke off goes on where it was', async () => {
  let failures = 3
  let cuts = 2
  rule = (message, answer) => {
    if (failures > 0) {
      if (failures-- === 2) answer.destroy()
      else answer.writeHead(503).end()
      return true
    }
    if (message.url?.endsWith(bigLayer()) === true && cuts > 0) {
      cuts--
      const headers = message.headers.range === undefined ? {} : { range: message.headers.range }
      const inner = request({ port: registryPort, path: message.url, headers, agent: false }, (body) => {
        answer.writeHead(body.statusCode ?? 500, body.headers)
        let left = 400_000
        body.on('data', (chunk: Buffer) => {
          answer.write(chunk.subarray(0, Math.max(0, left)))
          left -= chunk.length
          if (left <= 0) setTimeout(() => answer.destroy(), 20)
        })
      })
      inner.on('error', () => {})
      answer.on('close', () => inner.destroy())
      inner.end()
      return true
    }
    return false
  }
  assert.equal((await pull('team/app:1')).digest, digest)
  const ranges = asked.filter(({ url }) => url.endsWith(bigLayer())).map(({ range }) => range)
  assert.equal(ranges.length, 3)
  assert.equal(ranges[0], undefined)
  assert.ok(ranges.slice(1).every((range) => /^bytes=[1-9]\d*-$/.test(range ?? '')))
})

test('a registry without ranges is read again from the start', async () => {
  let cut = true
  rule = (message, answer) => {
    delete message.headers.range
    if (message.url?.endsWith(bigLayer()) !== true || !cut) return false
    cut = false
    answer.writeHead(200, { 'content-length': 5_000_000 })
    answer.write(Buffer.alloc(1000), () => answer.destroy())
    return true
  }
  assert.equal((await pull('team/app:1')).digest, digest)
})

test('a registry that is not there is unreachable', async () => {
  const { store } = newStore()
  const gone = `127.0.0.1:${await freePort()}`
  await assert.rejects(store.pull(`${gone}/a:1`, quiet, soon()), (error) => isError(error, 'RegistryUnreachable'))
  await assert.rejects(store.pull('registry.invalid/a:1', quiet, soon()), (error) =>
    isError(error, 'RegistryUnreachable'),
  )
})

test('an abort ends a pull that hangs, and nothing stays', async () => {
  const { path, store } = newStore()
  const hanging = Promise.withResolvers<void>()
  rule = (message, answer) => {
    if (!isBlob(message)) return false
    answer.writeHead(200, { 'content-length': 1000 })
    answer.write('x')
    hanging.resolve()
    return true
  }
  const ending = new AbortController()
  const pulling = store.pull(`${host}/team/app:1`, quiet, ending.signal)
  await hanging.promise
  ending.abort()
  await assert.rejects(pulling, (error) => isError(error, 'DeadlineExceeded'))
  assert.deepEqual(filesBelow(path), [])
})
