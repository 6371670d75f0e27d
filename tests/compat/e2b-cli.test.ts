import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { eventually, type ServerProcess } from '../server-process.ts'
import type { CallList } from './calls.ts'
import { type Ended, e2bEnvironment, npmCommand, npmDialogue, startServer } from './compat.ts'
import { checkCompatibility } from './compatibility.ts'
import { E2B_CLI } from './e2b-differences.ts'

const SUITE_MS = 560_000

/** The commands that the program itself says it has, with those inside them: `sandbox snapshot list`. */
async function commandsOf(words: string[], variables: Record<string, string>): Promise<string[]> {
  const { stdout } = await npmCommand('e2b', [...words, '--help'], variables)
  const listed = (stdout.split(/^Commands:\n/m)[1] ?? '').split('\n')
  const names = listed.flatMap((line) => /^ {2}([a-z][a-z-]*)/.exec(line)?.[1] ?? []).filter((name) => name !== 'help')
  if (names.length === 0) return words.length === 0 ? [] : [words.join(' ')]
  return (await Promise.all(names.map((name) => commandsOf([...words, name], variables)))).flat()
}

suite('the E2B command line', { timeout: SUITE_MS }, () => {
  let server: ServerProcess
  let home: string
  let variables: Record<string, string>
  const calls: CallList = { all: [], called: [] }
  before(async () => {
    server = await startServer('e2b-cli')
    home = await mkdtemp(join(tmpdir(), 'icebox-e2b-cli-'))
    variables = { ...(await e2bEnvironment(server)), HOME: home }
    calls.all = await commandsOf([], variables)
  })
  after(async () => {
    await server?.[Symbol.asyncDispose]()
    if (home !== undefined) await rm(home, { recursive: true, force: true })
  })

  const isCalled = (words: string[]) => {
    const said = words.join(' ')
    const called = calls.all.find((command) => said === command || said.startsWith(`${command} `))
    if (called !== undefined && !calls.called.includes(called)) calls.called.push(called)
  }
  const e2b = async (...words: string[]): Promise<Ended> => {
    isCalled(words)
    return npmCommand('e2b', words, variables)
  }
  const works = async (...words: string[]): Promise<string> => {
    const { status, stdout, stderr } = await e2b(...words)
    assert.equal(status, 0, `e2b ${words.join(' ')}: ${stdout}${stderr}`)
    return stdout
  }
  const json = async (...words: string[]) => JSON.parse(await works(...words, '--format', 'json'))
  const ids = async (...words: string[]): Promise<string[]> =>
    (await json('sandbox', 'list', ...words)).map(({ sandboxId }: { sandboxId: string }) => sandboxId)

  test('a sandbox from its creation to its end', async () => {
    await works('sandbox', 'create', 'base', '--detach', '--timeout', '300')
    const [id = ''] = await ids()
    assert.match(id, /^[a-z0-9]+$/)
    assert.equal((await json('sandbox', 'info', id)).state, 'running')
    assert.equal(await works('sandbox', 'exec', id, 'whoami'), 'user\n')
    assert.equal((await e2b('sandbox', 'exec', '--user', 'root', '--cwd', '/tmp', id, 'sh -c "pwd; exit 3"')).status, 3)
    const connect = ['sandbox', 'connect', id]
    isCalled(connect)
    const dialogue = { prompt: /user@.*\$ /, typed: 'echo in-$((20 + 1)) $(stty size)\rexit\r' }
    assert.match(await npmDialogue('e2b', connect, variables, dialogue), /\bin-21 \d+ \d+\r/)
    await eventually(async () => ((await works('sandbox', 'metrics', id)).length > 0 ? true : undefined), 'metrics')
    await works('sandbox', 'logs', id)

    await works('sandbox', 'snapshot', 'create', id, '--name', 'kept')
    const listed = await json('sandbox', 'snapshot', 'list', id)
    assert.equal(listed.length, 1)
    await works('sandbox', 'snapshot', 'delete', listed[0].snapshotId)

    await works('sandbox', 'pause', id)
    assert.deepEqual([await ids(), await ids('--state', 'paused')], [[], [id]])
    await works('sandbox', 'resume', id)
    await works('sandbox', 'kill', id)
    assert.deepEqual(await ids(), [])
  })

  test('templates are listed and deleted; builds say that they are not made here', async () => {
    const named = (await json('template', 'list')).flatMap(({ aliases }: { aliases: string[] }) => aliases)
    assert.ok(named.includes('base'))
    await writeFile(join(home, 'Dockerfile'), 'FROM debian\n')
    const built = await e2b('template', 'create', 'mine', '--path', home)
    assert.notEqual(built.status, 0)
    assert.match(built.stdout + built.stderr, /template/i)
    await server.icebox.templates.build({ name: 'spare', image: (await server.icebox.templates.get('base')).image })
    await works('template', 'delete', 'spare', '--yes')
    assert.deepEqual(
      (await server.icebox.templates.list()).map(({ name }) => name),
      ['base'],
    )
  })

  test('nothing that it offers was forgotten', () => {
    const list = { all: calls.all.toSorted(), called: calls.called.toSorted() }
    return checkCompatibility('npm @e2b/cli 2.19.0', list, E2B_CLI)
  })
})
