import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { Icebox } from '@icebox/sdk'
import { npmClients, pythonClients } from '../../setup/clients.ts'
import { e2bEnvironment, keyOf, openSandboxEnvironment, run, startServer } from '../compat/compat.ts'
import { eventually, type ServerProcess } from '../server-process.ts'
import { type Block, blocksOf } from './blocks.ts'
import { Recorder } from './recorder.ts'
import { tour } from './tour.ts'

/**
 * The programs of the pages that people read first are run as they stand there, against a real server; and together with a tour
 * through the SDK they have to reach all of the native API, as its document has it.
 */

const ROOT = join(import.meta.dirname, '../..')
const SUITE_MS = 560_000
const soon = () => AbortSignal.timeout(SUITE_MS)
/** Packages of others that the programs import. */
const CLIENTS = ['e2b', '@alibaba-group/opensandbox']

/** Operations that the SDK does not reach, and parameters that it does not send. */
const NOT_COVERED: [what: RegExp, why: string][] = [
  [/^reportEvent$/, 'takes what clients of OpenSandbox tell of themselves; the SDK tells nothing'],
  [/^(?:list\w+|getUsage) page$/, 'lists go by tokens, which do not shift'],
  [/^(?:list(?!Events)\w+|getUsage) after$/, 'is sent beyond 1000 items: packages/sdk/src/connection.test.ts'],
  [/^getEndpoint expires$/, 'asks for signed endpoints, which are refused'],
  [/^listEvents last-event-id$/, 'is what browsers send in place of `after`'],
  [/^buildTemplate prefer$/, 'a build is followed to its end by its progress'],
]

const pages = ['README.md', 'packages/sdk/README.md']
for (const name of await readdir(join(ROOT, 'docs/guides'))) pages.push(`docs/guides/${name}`)
const blocks = (await Promise.all(pages.map((page) => blocksOf(ROOT, page)))).flat()
const ofKind = (info: string) => blocks.filter((block) => block.info === info)

/** What the page says that the program prints: the block after it, when that is `text`. */
function outputOf(block: Block): string | undefined {
  const next = blocks[blocks.indexOf(block) + 1]
  return next?.info === 'text' && next.at.split(':')[0] === block.at.split(':')[0] ? next.text : undefined
}

suite('the programs of the documentation', { timeout: SUITE_MS }, () => {
  let server: ServerProcess
  let recorder: Recorder
  let directory: string
  let environment: Record<string, string>

  before(async () => {
    server = await startServer('examples')
    recorder = await Recorder.before(server.icebox.url)
    directory = await mkdtemp(join(tmpdir(), 'icebox-examples-'))
    environment = {
      ICEBOX_DATA: server.dataDirectory,
      ICEBOX_URL: recorder.url,
      ICEBOX_API_KEY: await keyOf(server),
      ...(await e2bEnvironment(server)),
      ...(await openSandboxEnvironment(server)),
    }
    const clients = join(await npmClients.path(soon()), 'node_modules')
    const links = [['@icebox/sdk', join(ROOT, 'packages/sdk')], ...CLIENTS.map((name) => [name, join(clients, name)])]
    for (const [name = '', target = ''] of links) {
      const link = join(directory, 'node_modules', name)
      await mkdir(join(link, '..'), { recursive: true })
      await symlink(target, link)
    }
  })
  after(async () => {
    await recorder?.[Symbol.asyncDispose]()
    await server?.[Symbol.asyncDispose]()
    if (directory !== undefined) await rm(directory, { recursive: true, force: true })
  })

  async function check(block: Block, words: readonly string[]): Promise<void> {
    const { status, stdout, stderr } = await run(words, environment, { cwd: directory })
    assert.equal(status, 0, `${block.at} ended with ${status}:\n${stdout}${stderr}`)
    const expected = outputOf(block)
    if (expected !== undefined) assert.equal(stdout.trim(), expected.trim(), block.at)
  }

  for (const block of ofKind('ts'))
    test(block.at, async () => {
      const file = join(directory, `${block.at.replaceAll(/\W/g, '-')}.mts`)
      await writeFile(file, block.text)
      await check(block, [process.execPath, '--experimental-strip-types', file])
    })

  for (const block of ofKind('python'))
    test(block.at, async () => {
      const file = join(directory, `${block.at.replaceAll(/\W/g, '-')}.py`)
      await writeFile(file, block.text)
      await check(block, [join(await pythonClients.path(soon()), 'bin', 'python'), file])
    })

  for (const block of ofKind('sh tested'))
    test(block.at, async (t) => {
      const data = join(directory, 'data')
      const own = { ICEBOX_DATA: data, ICEBOX_URL: '', ICEBOX_API_KEY: '' }
      // As it stands there, but for the port, which may be taken on this machine.
      const command = `#!/bin/sh\n[ "$1" != up ] || set -- "$@" --listen 127.0.0.1:0\nexec '${ROOT}/icebox' "$@"\n`
      await writeFile(join(directory, 'icebox'), command, { mode: 0o755 })
      await mkdir(join(directory, 'project'))
      t.after(() => run([join(directory, 'icebox'), 'down', '--kill'], own))
      const { status, stdout, stderr } = await run(['sh', '-eu', '-c', block.text], own, {
        cwd: directory,
        deadlineMs: 300_000,
      })
      assert.equal(status, 0, `${block.at} ended with ${status}:\n${stdout}${stderr}`)
    })

  test('what `icebox e2b env` prints is what the first page shows', async () => {
    const { stdout } = await run([join(ROOT, 'icebox'), 'e2b', 'env'], environment)
    const shown = blocks.find(({ at, text }) => at.startsWith('README.md') && text.startsWith('export '))
    const form = (text = '') =>
      text
        .trim()
        .replaceAll(/:\d+'/g, ":PORT'")
        .replaceAll(/e2b_[0-9a-f]{40}/g, 'KEY')
    assert.equal(form(shown?.text), form(stdout))
  })

  test('there is something of each kind', () => {
    const uses = (name: string) => ofKind('ts').filter(({ text }) => text.includes(`from '${name}'`)).length
    assert.ok(uses('@icebox/sdk') > 5)
    for (const name of CLIENTS) assert.ok(uses(name) > 0, name)
    assert.ok(ofKind('python').length > 0 && ofKind('sh tested').length > 0)
  })

  test('a tour through the rest of the SDK', async () => {
    await tour(recorder.url, environment.ICEBOX_API_KEY ?? '')
    const { pid } = server
    await new Icebox({ url: recorder.url, apiKey: environment.ICEBOX_API_KEY }).shutdown('kill')
    await eventually(async () => !existsSync(`/proc/${pid}`) || undefined, 'the server ends')
  })

  test('the SDK reaches all of the native API', async () => {
    const { paths } = JSON.parse(await readFile(join(ROOT, 'docs/reference/openapi.json'), 'utf8')) as Document
    const missing: string[] = []
    for (const [path, methods] of Object.entries(paths))
      for (const [method, { operationId, parameters = [] }] of Object.entries(methods)) {
        const pattern = new RegExp(`^${path.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '[^/]+')}$`)
        const seen = recorder.seen.filter((each) => each.method === method.toUpperCase() && pattern.test(each.path))
        const sent = new Set(seen.flatMap((each) => [...each.parameters]))
        if (seen.length === 0) missing.push(operationId)
        else
          for (const { name, in: where } of parameters)
            if (where !== 'path' && !sent.has(name.toLowerCase()) && !sent.has(name))
              missing.push(`${operationId} ${name}`)
      }
    assert.deepEqual(
      missing.filter((each) => !NOT_COVERED.some(([what]) => what.test(each))),
      [],
    )
    for (const [what] of NOT_COVERED)
      assert.ok(
        missing.some((each) => what.test(each)),
        `${what} is covered`,
      )
  })
})

interface Document {
  paths: Record<string, Record<string, { operationId: string; parameters?: { name: string; in: string }[] }>>
}

test('the recorder passes on what it sees', async (t) => {
  const server = createServer((request: IncomingMessage, response) => {
    response.writeHead(201, { 'x-one': 'a' })
    request.pipe(response)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  await using recorder = await Recorder.before(`http://127.0.0.1:${address.port}`)
  const answer = await fetch(`${recorder.url}/v1/a?b=c`, { method: 'POST', body: 'text', headers: { Prefer: 'x' } })
  assert.deepEqual([answer.status, answer.headers.get('x-one'), await answer.text()], [201, 'a', 'text'])
  const [seen] = recorder.seen
  assert.deepEqual([seen?.method, seen?.path], ['POST', '/v1/a'])
  assert.ok(seen?.parameters.has('b') && seen.parameters.has('prefer'))
})
