import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { type TestContext, test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import { BASE_IMAGE } from '@icebox/node'
import { eventually } from './server-process.ts'

/** A server that dies comes back, and says of what it died. By the `icebox` command alone. */

const ICEBOX = join(import.meta.dirname, '../icebox')
const SECRET = 'hunter2-of-the-environment'

interface Place {
  data: string
  env: NodeJS.ProcessEnv
}

async function icebox({ env }: Place, words: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  const child = spawn(ICEBOX, words, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const [stdout, stderr, [code]] = await Promise.all([
    new Response(ReadableStream.from(child.stdout)).text(),
    new Response(ReadableStream.from(child.stderr)).text(),
    once(child, 'close'),
  ])
  return { status: typeof code === 'number' ? code : -1, stdout, stderr }
}

async function json(place: Place, ...words: string[]) {
  const { status, stdout, stderr } = await icebox(place, [...words, '--json'])
  assert.equal(status, 0, `icebox ${words.join(' ')}: ${stderr}`)
  return JSON.parse(stdout)
}

/** What runs with this data directory, by its words. */
const processesOf = ({ data }: Place): { pid: number; words: string }[] =>
  execFileSync('ps', ['-eo', 'pid,stat,args', '-ww'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(data) && line.includes('.ts ') && !/^\s*\d+ Z/.test(line))
    .map((line) => ({ pid: Number(line.trim().split(' ')[0]), words: line }))

/** A data directory whose server, supervisor and sandboxes go with the test. */
async function place(t: TestContext, env: NodeJS.ProcessEnv = {}): Promise<Place> {
  const scratch = await mkdtemp(join(tmpdir(), 'icebox-supervision-'))
  const { ICEBOX_URL: _, ICEBOX_API_KEY: __, ...rest } = process.env
  const made = {
    data: join(scratch, 'data'),
    env: { ...rest, ICEBOX_DATA: join(scratch, 'data'), NO_COLOR: '1', ...env },
  }
  t.after(async () => {
    await icebox(made, ['down', '--kill'])
    // One that died, or was given up, has left its run directory to a server after it.
    const { status } = await icebox(made, ['up', '-d', '--no-base', '--listen', '127.0.0.1:0'])
    if (status === 0) await icebox(made, ['down', '--kill'])
    for (const { pid } of processesOf(made)) process.kill(pid, 'SIGKILL')
    await rm(scratch, { recursive: true, force: true })
  })
  return made
}

const up = (at: Place): Promise<{ url: string; pid: number; restartedBy: string }> =>
  json(at, 'up', '-d', '--no-base', '--listen', '127.0.0.1:0')

const read = async (at: Place, file: string) =>
  JSON.parse(await readFile(join(at.data, file), 'utf8').catch(() => 'null'))
const recent = async (at: Place): Promise<{ cause: string; message: string; restartMs?: number; pid: number }[]> =>
  (await read(at, 'deaths.json'))?.recent ?? []

/** The server that came after this one, once it answers. */
const nextOf = (at: Place, pid: number): Promise<{ pid: number; url: string }> =>
  eventually(
    async () => {
      const server = await read(at, 'server.json')
      if (server === null || server.pid === pid) return undefined
      const { status } = await icebox(at, ['ps'])
      return status === 0 ? server : undefined
    },
    'another server',
    60_000,
  )

const checkOf = async (at: Place, id: string) => {
  const { checks } = JSON.parse((await icebox(at, ['doctor', '--json'])).stdout)
  return checks.find((check: { id: string }) => check.id === id)
}

async function metrics(at: Place, url: string): Promise<string> {
  const key = (await readFile(join(at.data, 'key'), 'utf8')).trim()
  return (await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${key}` } })).text()
}

test('killed, it is back at its address with its sandboxes running, and its death is told everywhere', async (t) => {
  const at = await place(t)
  const first = await up(at)
  assert.equal(first.restartedBy, 'icebox')
  const image = await json(at, 'image', 'pull', BASE_IMAGE)
  const sandbox = await json(at, 'sandbox', 'create', '--image', image.digest)
  const inside = ['exec', sandbox.id, '--', 'sh', '-c']
  await icebox(at, [...inside, 'setsid sleep 1000 >/dev/null 2>&1 & echo $! > /tmp/pid'])
  process.kill(first.pid, 'SIGKILL')
  const second = await nextOf(at, first.pid)
  assert.equal(second.url, first.url)
  const { status, stderr } = await icebox(at, [...inside, 'kill -0 $(cat /tmp/pid)'])
  assert.equal(status, 0, stderr)

  const [death] = await recent(at)
  assert.deepEqual([death?.cause, death?.pid], ['Killed', first.pid])
  const check = await checkOf(at, 'server-deaths')
  assert.equal(check.status, 'warning')
  assert.match(check.found, /^1 in the last day, 1 in all; .*Killed/)
  assert.match((await checkOf(at, 'server')).found, new RegExp(`process ${second.pid}, started again by`))
  const events: { kind: string; to: string; reason: string }[] = await json(at, 'events', 'server')
  assert.deepEqual(
    events.map(({ kind, to, reason }) => [kind, to, reason]),
    [['Server', 'died', 'Killed']],
  )
  assert.match(await metrics(at, second.url), /^icebox_server_deaths_total\{cause="Killed"\} 1$/m)

  // Once, however often it is started.
  process.kill(second.pid, 'SIGKILL')
  const third = await nextOf(at, second.pid)
  assert.equal((await json(at, 'events', 'server')).length, 2)
  assert.match(await metrics(at, third.url), /^icebox_server_deaths_total\{cause="Killed"\} 2$/m)

  assert.equal((await icebox(at, ['down', '--kill'])).status, 0)
  assert.deepEqual(processesOf(at), [])
  for (const file of ['server.json', 'supervisor.json']) assert.equal(existsSync(join(at.data, file)), false, file)
})

test('one that dies again and again is started ever later; meanwhile nobody else starts one, and `down` ends it', async (t) => {
  const at = await place(t)
  let { pid } = await up(at)
  for (const waits of [[500], [500, 1000], [500, 1000, 2000], [500, 1000, 2000, 4000]]) {
    process.kill(pid, 'SIGKILL')
    await eventually(
      async () => ((await recent(at)).length === waits.length ? true : undefined),
      'its death is recorded',
    )
    assert.deepEqual(
      (await recent(at)).map(({ restartMs }) => restartMs),
      waits,
    )
    if (waits.length < 4) pid = (await nextOf(at, pid)).pid
  }
  assert.equal((await checkOf(at, 'server')).status, 'warning')
  const [detached, foreground] = [await icebox(at, ['up', '-d', '--no-base']), await icebox(at, ['up', '--no-base'])]
  for (const { status, stderr } of [detached, foreground]) {
    assert.equal(status, 3)
    assert.match(stderr, /about to start it again/)
  }
  const { status, stdout, stderr } = await icebox(at, ['down'])
  assert.deepEqual([status, stdout], [1, 'the server had died, and is not started again\n'])
  assert.match(stderr, /run on/)
  assert.deepEqual(processesOf(at), [])
})

test('a full heap and an exception that nothing caught are told as what they are, without the environment', async (t) => {
  const preload = join(await mkdtemp(join(tmpdir(), 'icebox-supervision-preload-')), 'preload.mjs')
  // What hostile load might bring about, here on a signal.
  await writeFile(
    preload,
    `process.on('SIGUSR2', () => { const kept = []; for (;;) kept.push(new Array(10_000).fill(kept.length + 0.5)) })
     process.on('SIGWINCH', () => { throw new Error('nobody caught this') })`,
  )
  const NODE_OPTIONS = `--import=${preload} --max-old-space-size=150`
  const at = await place(t, { NODE_OPTIONS, SECRET_OF_SOMEBODY: SECRET })
  t.after(() => rm(dirname(preload), { recursive: true, force: true }))
  const { pid } = await up(at)
  process.kill(pid, 'SIGUSR2')
  const second = await nextOf(at, pid)
  process.kill(second.pid, 'SIGWINCH')
  const third = await nextOf(at, second.pid)
  const [heap, exception] = await recent(at)
  assert.deepEqual([heap?.cause, exception?.cause], ['OutOfHeap', 'Exception'])
  assert.match(exception?.message ?? '', /nobody caught this/)
  assert.match(await metrics(at, third.url), /^icebox_server_deaths_total\{cause="OutOfHeap"\} 1$/m)
  const report = await readFile(join(at.data, 'crash-report.json'), 'utf8')
  assert.ok(report.includes('nobody caught this') && !report.includes(SECRET))
})

test('a server without its supervisor goes on; what it died of unseen is found by the next', async (t) => {
  const at = await place(t)
  const { pid } = await up(at)
  const supervisor: { pid: number } = await read(at, 'supervisor.json')
  process.kill(supervisor.pid, 'SIGKILL')
  const check = await eventually(async () => {
    const found = await checkOf(at, 'server')
    return found.status === 'warning' ? found : undefined
  }, 'doctor sees it')
  assert.match(check.found, new RegExp(`process ${pid}, which nobody starts again`))
  assert.equal((await icebox(at, ['ps'])).status, 0)
  const again = await icebox(at, ['up', '-d', '--no-base', '--listen', '127.0.0.1:0'])
  assert.equal(again.status, 3)
  assert.match(again.stderr, new RegExp(`in use by process ${pid}`))

  process.kill(pid, 'SIGKILL')
  const dead = await eventually(async () => {
    const found = await checkOf(at, 'server')
    return found.found.includes('has died') ? found : undefined
  }, 'doctor sees that it died')
  assert.deepEqual([dead.status, dead.found], ['warning', `process ${pid} has died, and nobody starts it again`])
  const next = await eventually(async () => {
    const started = await icebox(at, ['up', '-d', '--no-base', '--listen', '127.0.0.1:0', '--json'])
    return started.status === 0 ? JSON.parse(started.stdout) : undefined
  }, 'the next server')
  assert.deepEqual(
    (await recent(at)).map((death) => [death.cause, death.pid]),
    [['Unknown', pid]],
  )
  assert.match(await metrics(at, next.url), /^icebox_server_deaths_total\{cause="Unknown"\} 1$/m)
  assert.equal((await icebox(at, ['down', '--kill'])).status, 0)
  assert.deepEqual(processesOf(at), [])
})

test('what would be refused again and again is not started again', async (t) => {
  const at = await place(t)
  const { pid } = await up(at)
  const supervisor: { pid: number } = await read(at, 'supervisor.json')
  process.kill(supervisor.pid, 'SIGSTOP')
  process.kill(pid, 'SIGKILL')
  // A newer Icebox has written it meanwhile.
  const version = await eventually(async () => {
    try {
      using database = new DatabaseSync(join(at.data, 'icebox.db'))
      const found = database.prepare('PRAGMA user_version').get()?.user_version
      database.exec('PRAGMA user_version = 999')
      return Number(found)
    } catch {
      return undefined
    }
  }, 'the database is closed')
  process.kill(supervisor.pid, 'SIGCONT')
  await eventually(async () => (processesOf(at).length === 0 ? true : undefined), 'it is given up')
  const deaths = await recent(at)
  assert.deepEqual(
    deaths.map(({ cause, restartMs }) => [cause, restartMs]),
    [
      ['Killed', 500],
      ['Failed', undefined],
    ],
  )
  using database = new DatabaseSync(join(at.data, 'icebox.db'))
  database.exec(`PRAGMA user_version = ${version}`)
})

test('in the foreground nobody starts it again, which it says; its heap is sized to the machine all the same', async (t) => {
  const at = await place(t)
  const child = spawn(ICEBOX, ['up', '--no-base', '--listen', '127.0.0.1:0'], {
    env: at.env,
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  let said = ''
  child.stdout.on('data', (piece) => (said += piece))
  await eventually(async () => (said.includes('death') ? true : undefined), 'it says so')
  assert.match(stripVTControlCharacters(said), /nobody starts it again/)
  const words = processesOf(at).concat({ pid: 0, words: '' })
  assert.equal((await checkOf(at, 'server')).status, 'warning')
  const cmdline = await readFile(`/proc/${child.pid}/cmdline`, 'utf8')
  assert.match(cmdline, /--max-old-space-size=\d+/, words.map((each) => each.words).join())
  child.kill('SIGTERM')
  await once(child, 'exit')
  assert.deepEqual(await recent(at), [])
})
