import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { z } from 'zod'
import { schemathesis } from '../../setup/clients.ts'
import type { ServerProcess } from '../server-process.ts'
import { keyOf, run, startServer } from './compat.ts'

const DOCUMENTS = join(import.meta.dirname, '../../docs/reference')
const SEED = 20_260
const REQUEST_SECONDS = 20
const DEADLINE_MS = 420_000

/** Fewer cases for each operation would say little. */
const CASES_EACH = 10
const ACCEPTED_EACH = 2
const HOOKS = join(import.meta.dirname, 'python')

const Report = z.looseObject({
  operations: z.object({ selected: z.int(), tested: z.int() }),
  test_cases: z.object({ generated: z.int() }),
})

/** How often each operation was answered with which status. */
const Answers = z.record(z.string(), z.record(z.string(), z.int()))

/**
 * schemathesis makes requests of an OpenAPI document, good ones and bad ones, and compares the answers with it. Half of the ids that
 * it sends are of sandboxes, snapshots and execs that are there.
 */
suite('the API answers as its OpenAPI document says', { timeout: 5 * DEADLINE_MS }, () => {
  let server: ServerProcess
  let directory: string
  let image: string
  const there: Record<string, string[]> = {}

  before(async () => {
    server = await startServer('schemathesis')
    directory = await mkdtemp(join(tmpdir(), 'icebox-schemathesis-'))
    const { sandboxes } = server.icebox
    const [running, other, paused] = await Promise.all(
      ['running', 'other', 'paused'].map((name) => sandboxes.create({ template: 'base', name })),
    )
    assert.ok(running && other && paused)
    const snapshot = await running.snapshot({ name: 'kept' })
    const ended = running.exec(['echo', 'said'])
    assert.equal((await ended).exitCode, 0)
    const exec = await running.exec(['sleep', '600'], { tag: 'long' }).started
    await paused.pause()
    image = (await server.icebox.templates.get('base')).image
    Object.assign(there, {
      sandboxes: [running.id, other.id, paused.id, 'running'],
      snapshots: [snapshot.id, 'kept'],
      execs: [exec.id, 'long'],
      // Of that sandbox: in another one the same id may be of a process that goes on.
      withEnded: [running.id, 'running'],
      ended: [(await ended.started).id],
      templates: ['base'],
      images: (await server.icebox.images.list()).map(({ id }) => id),
      paths: ['/etc/passwd', '/tmp', 'new', '.profile', '/dev/null'],
      ports: ['1', '22', '8080'],
    })
  })
  after(async () => {
    await server?.[Symbol.asyncDispose]()
    if (directory !== undefined) await rm(directory, { recursive: true, force: true })
  })

  /** Runs these phases of it over the operations that the flags leave, each of which gets so many requests that must be accepted. Answers nothing that was wrong. */
  const tryOut = async (document: string, accepted: number, flags: readonly string[]) => {
    const program = join(await schemathesis.path(AbortSignal.timeout(60_000)), 'bin/python')
    await writeFile(join(directory, 'schemathesis.toml'), configuration(there))
    // Python's regular expressions have no names for kinds of characters.
    const text = (await readFile(join(DOCUMENTS, document), 'utf8')).replaceAll(
      '\\\\p{Cc}',
      '\\\\x00-\\\\x1f\\\\x7f-\\\\x9f',
    )
    await writeFile(join(directory, document), text)
    const words = [
      ...[program, '-m', 'schemathesis.cli', '--config-file', 'schemathesis.toml', 'run'],
      ...[document, '--url', server.icebox.url, '--header', `X-API-Key: ${await keyOf(server)}`],
      ...['--seed', `${SEED}`, '--request-timeout', `${REQUEST_SECONDS}`],
      // One: `ast.parse` of some Pythons (3.11) fails now and then when two threads call it.
      ...['--workers', '1', '--continue-on-failure', '--no-shrink', '--no-color'],
      ...['--generation-database', 'none', '--warnings', 'off'],
      ...['--report', 'json', '--report-json-path', 'report.json'],
      ...flags,
    ]
    const answers = join(directory, 'answers.json')
    const variables = {
      ...{ SCHEMATHESIS_HOOKS: 'schemathesis_hooks', PYTHONPATH: HOOKS, PYTHONDONTWRITEBYTECODE: '1' },
      ...{ ICEBOX_URL: server.icebox.url, ICEBOX_API_KEY: await keyOf(server), ICEBOX_IMAGE: image },
      ...{ ANSWERS: answers, ACCEPTED: `${accepted}` },
    }
    const { status, stdout, stderr } = await run(words, variables, { cwd: directory, deadlineMs: DEADLINE_MS })
    assert.equal(status, 0, `${stdout}\n${stderr}`)
    assert.equal((await server.icebox.health()).status, 'ok')
    const json = async (file: string) => JSON.parse(await readFile(join(directory, file), 'utf8'))
    return { report: Report.parse(await json('report.json')), answers: Answers.parse(await json('answers.json')) }
  }

  /** What it finds by itself in the document, all of it, and then for so many seconds what comes to its mind. */
  const check = async (document: string, seconds: number, operations: readonly string[]) => {
    const covered = await tryOut(document, ACCEPTED_EACH, ['--phases', 'examples,coverage', ...operations])
    assert.equal(covered.report.operations.tested, covered.report.operations.selected)
    const neverAccepted = Object.entries(covered.answers)
      .filter(
        ([operation, counts]) => !isRefused(operation) && !Object.keys(counts).some((each) => each.startsWith('2')),
      )
      .map(([operation, counts]) => `${operation}: ${JSON.stringify(counts)}`)
    assert.deepEqual(neverAccepted, [])
    const { report } = await tryOut(document, 0, ['--phases', 'fuzzing', '--max-time', `${seconds}`, ...operations])
    const cases = covered.report.test_cases.generated + report.test_cases.generated
    assert.ok(cases > covered.report.operations.tested * CASES_EACH, `${cases} cases`)
  }
  const each = (flag: string, operations: readonly string[]) => operations.flatMap((operation) => [flag, operation])

  test('the native API, with sandboxes that stay', { timeout: DEADLINE_MS }, () =>
    check('openapi.json', 25, each('--exclude-operation-id', [...Object.keys(NOT_TRIED), ...LIFECYCLE, ...ALONE])),
  )

  test('the native API, where an answer lasts as long as a process', { timeout: DEADLINE_MS }, () =>
    check('openapi.json', 5, each('--include-operation-id', ALONE)),
  )

  test('the native API, where sandboxes come and go', { timeout: DEADLINE_MS }, () =>
    check('openapi.json', 20, each('--include-operation-id', LIFECYCLE)),
  )

  test('the E2B API, with sandboxes that stay', { timeout: DEADLINE_MS }, () =>
    check('openapi-e2b.json', 15, each('--exclude-operation-id', E2B_LIFECYCLE)),
  )

  test('the E2B API, where sandboxes come and go', { timeout: DEADLINE_MS }, () =>
    check('openapi-e2b.json', 15, each('--include-operation-id', E2B_LIFECYCLE)),
  )
})

/** What is left out of the run, and why. */
const NOT_TRIED: Readonly<Record<string, string>> = {
  shutdown: 'it ends the server',
  openPort: 'its good answer is another protocol on the same connection (101)',
  watchFiles: 'it answers until the client goes away',
}

/** What no request is accepted by: this server builds no templates for E2B's clients; and no image is left over to be deleted. */
const isRefused = (operation: string): boolean =>
  operation === 'DELETE /v1/images/{ref}' ||
  /^(POST|PATCH) (\/v[23])?\/templates(\/\{templateID\}.*)?$|^GET \/templates\/\{templateID\}\/(files|builds)\//.test(
    operation,
  )

/** It learns ids from answers: from those of other operations it would learn those of processes that go on, and wait for their end. */
const ALONE = ['followExec']

/** What takes away from the other operations what they need. */
const LIFECYCLE = [
  ...['createSandbox', 'deleteSandbox', 'pauseSandbox', 'resumeSandbox', 'rollbackSandbox', 'forkSandbox'],
  ...['renewSandboxExpiration', 'createSnapshot', 'deleteSnapshot', 'buildTemplate', 'deleteTemplate'],
  ...['pullImage', 'deleteImage', 'getSandbox', 'listSandboxes'],
]

const E2B_LIFECYCLE = [
  ...['createSandbox', 'createSandboxV2', 'killSandbox', 'pauseSandbox', 'resumeSandbox', 'connectSandbox'],
  ...['connectSandboxV2', 'forkSandbox', 'setSandboxTimeout', 'createSnapshot', 'deleteTemplate'],
  ...['listSandboxes', 'listRunningSandboxes', 'getSandbox'],
]

/** Which of the ids a parameter may be, by the path of its operation. */
const PARAMETERS = [
  // The output of an exec that goes on would go on.
  { path: '/output$', parameters: { 'path.id': 'withEnded', 'path.exec': 'ended' } },
  {
    path: '^/v1/sandboxes/\\{id\\}(?!.*/output$)',
    parameters: { 'path.id': 'sandboxes', 'path.exec': 'execs', 'query.path': 'paths', 'path.port': 'ports' },
  },
  // All of its disk would be read, each time.
  { path: '^/v1/snapshots/\\{id\\}(?!/export)', parameters: { 'path.id': 'snapshots' } },
  { path: '^/v1/templates/\\{name\\}', parameters: { 'path.name': 'templates' } },
  { path: '^/v1/images/\\{ref\\}', parameters: { 'path.ref': 'images' } },
  { path: '^/(v2/)?sandboxes/\\{sandboxID\\}', parameters: { 'path.sandboxID': 'sandboxes' } },
  { path: '^/sandboxes/metrics$', parameters: { 'query.sandbox_ids': 'sandboxes' } },
  { path: '^/(v2/)?templates/\\{templateID\\}', parameters: { 'path.templateID': 'templates' } },
  { path: '^/templates/aliases', parameters: { 'path.alias': 'templates' } },
]

function configuration(there: Record<string, string[]>): string {
  const quoted = (text: string) => JSON.stringify(text)
  const lines = ['[checks]', 'enabled = false']
  for (const check of ['status_code_conformance', 'content_type_conformance', 'response_headers_conformance'])
    lines.push(`${check}.enabled = true`)
  lines.push('response_schema_conformance.enabled = true', 'not_a_server_error.enabled = true')
  lines.push('not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 502, 503, 507]')
  for (const [name, values] of Object.entries(there))
    lines.push(`[dictionaries.${name}]`, `values = [${values.map(quoted).join(', ')}]`)
  for (const { path, parameters } of PARAMETERS) {
    lines.push('[[operations]]', `include-path-regex = ${quoted(path)}`, '[operations.parameters]')
    for (const [name, dictionary] of Object.entries(parameters))
      lines.push(`${quoted(name)} = { dictionary = ${quoted(dictionary)}, probability = 0.7 }`)
  }
  return `${lines.join('\n')}\n`
}
