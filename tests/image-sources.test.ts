import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Icebox, type IceboxError, isIceboxError } from '@icebox/sdk'
import { blobFile, tarOf, writeLayout } from '../packages/node/src/images/fixture.ts'
import { eventually, ServerProcess } from './server-process.ts'

/** What `icebox up` is told that images may be made of, as the keys of two projects find it. */

let scratch = ''
let layout = ''
let digest = ''
let registry: Server
let guarded: Server
let server: ServerProcess
let [listed, other]: Icebox[] = []

const AUTHORIZATION = `Basic ${Buffer.from('operator:secret').toString('base64')}`
const portOf = (one: Server): number => (one.address() as AddressInfo).port
const hostOf = (one: Server): string => `127.0.0.1:${portOf(one)}`

/** The layout as a registry has it. */
async function answer({ url = '' }: IncomingMessage, reply: ServerResponse): Promise<void> {
  const name = url.slice(url.lastIndexOf('/') + 1)
  reply.end(await readFile(blobFile(layout, name.startsWith('sha256:') ? name : digest)))
}

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'icebox-sources-'))
  layout = join(scratch, 'shared', 'layout')
  await mkdir(layout, { recursive: true })
  digest = writeLayout(layout, [await tarOf([{ name: 'file', content: 'x' }])])
  await symlink('/etc', join(scratch, 'shared', 'away'))
  registry = createServer((asked, reply) => void answer(asked, reply)).listen(0, '127.0.0.1')
  guarded = createServer((asked, reply) => {
    if (asked.headers.authorization === AUTHORIZATION) void answer(asked, reply)
    else reply.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
  }).listen(0, '127.0.0.1')
  await Promise.all([once(registry, 'listening'), once(guarded, 'listening')])
  const docker = join(scratch, 'docker')
  await mkdir(docker)
  const auth = Buffer.from('operator:secret').toString('base64')
  await writeFile(join(docker, 'config.json'), JSON.stringify({ auths: { [hostOf(guarded)]: { auth } } }))
  process.env.DOCKER_CONFIG = docker
  const flags = [
    ...['--no-base', '--image-directory', join(scratch, 'shared'), '--registry-credentials', 'listed'],
    ...['--registry-allow', hostOf(registry), '--registry-allow', hostOf(guarded)],
  ]
  server = await ServerProcess.start('sources', { flags })
  const open = async (project: string) => {
    const { key } = await server.icebox.keys.create({ project })
    return new Icebox({ url: server.icebox.url, apiKey: key })
  }
  listed = await open('listed')
  other = await open('other')
})
after(async () => {
  delete process.env.DOCKER_CONFIG
  registry?.closeAllConnections()
  registry?.close()
  guarded?.closeAllConnections()
  guarded?.close()
  await server?.[Symbol.asyncDispose]()
  await rm(scratch, { recursive: true, force: true })
})

async function failure(icebox: Icebox | undefined, reference: string): Promise<IceboxError> {
  assert.ok(icebox)
  const thrown: unknown = await icebox.images.pull(reference).then(
    () => assert.fail(`${reference} was pulled`),
    (error: unknown) => error,
  )
  assert.ok(isIceboxError(thrown), String(thrown))
  return thrown
}

test('a registry inside is there for every project when it is listed, and no other port is', async () => {
  for (const icebox of [server.icebox, listed, other])
    assert.equal((await icebox?.images.pull(`${hostOf(registry)}/app:1`))?.digest, digest)
  const { port } = new URL(server.icebox.url)
  const texts = new Set<string>()
  for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, `[::1]:${port}`, '169.254.169.254:80', '127.0.0.1:1']) {
    const { code, message, details } = await failure(other, `${host}/app:1`)
    assert.equal(code, 'RegistryUnreachable', host)
    texts.add(`${message} ${JSON.stringify(details)}`.replaceAll(host, 'REGISTRY'))
  }
  assert.equal(texts.size, 1, [...texts].join('\n'))
  const log = join(server.dataDirectory, 'server.log')
  await eventually(
    async () => /registry\.unreachable.*not allowed/.test(await readFile(log, 'utf8')) || undefined,
    'the log says why',
  )
  assert.match((await failure(server.icebox, '127.0.0.1:1/app:1')).message, /not allowed/)
})

test('the credentials of the machine are for the installation and the project that is listed', async () => {
  const reference = `${hostOf(guarded)}/app:1`
  assert.equal((await failure(other, reference)).code, 'RegistryUnreachable')
  assert.equal((await listed?.images.pull(reference))?.digest, digest)
  assert.equal((await server.icebox.images.pull(reference)).digest, digest)
})

test('files below the directory that is listed are there for every project, and nothing beside it', async () => {
  assert.equal((await other?.images.pull(`oci:${layout}`))?.digest, digest)
  for (const reference of [`dir:${scratch}`, `dir:${scratch}/shared/away`, `dir:${scratch}/shared/../docker`])
    assert.equal((await failure(other, reference)).code, 'Forbidden', reference)
  assert.equal((await failure(server.icebox, `dir:${scratch}/docker`)).code, 'Forbidden', 'its credentials')
})
