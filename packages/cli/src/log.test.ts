import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { openLog } from './log.ts'

const exec = promisify(execFile)
const PAGE = 4096

/** A file system of its own, small enough to be filled. */
async function smallDirectory(t: TestContext, pages = 16): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-log-'))
  t.after(async () => {
    await exec('umount', ['--lazy', directory])
    await rm(directory, { recursive: true })
  })
  await exec('mount', ['-t', 'tmpfs', '-o', `size=${pages * PAGE}`, 'tmpfs', directory])
  return directory
}

const fill = (directory: string, pages = 16) =>
  assert.rejects(writeFile(join(directory, 'ballast'), Buffer.alloc(2 * pages * PAGE)), { code: 'ENOSPC' })

const linesOf = async (file: string) => (await readFile(file, 'utf8')).trimEnd().split('\n')
const eventsOf = async (file: string) => (await linesOf(file)).map((line) => JSON.parse(line).event)

test('a log on a full disk keeps its lines, whole and in order, and writes them when there is room again', async (t) => {
  const directory = await smallDirectory(t)
  const file = join(directory, 'server.log')
  const log = await openLog(file)
  const grown = async (bytes: number) => {
    while ((await stat(file)).size < bytes) await sleep(5, undefined, { signal: t.signal })
  }
  log.write('info', 'before', {})
  await grown(1)
  await fill(directory)
  log.write('info', 'too.long', { text: 'x'.repeat(2 * PAGE) })
  // The page that the log has already is filled first: half a line.
  await grown(PAGE)
  log.write('info', 'meanwhile', {})
  await rm(join(directory, 'ballast'))
  log.write('info', 'after', {})
  // Without anybody asking.
  while (!(await readFile(file, 'utf8')).includes('"after"')) await sleep(5, undefined, { signal: t.signal })
  assert.deepEqual(await eventsOf(file), ['before', 'too.long', 'meanwhile', 'after'])
  await log.close()
})

test('lines beyond what is kept are counted, and the log tells how many where they are missing', async (t) => {
  const directory = await smallDirectory(t, 4096)
  const file = join(directory, 'server.log')
  const log = await openLog(file)
  await fill(directory, 4096)
  const written = 100
  for (let i = 0; i < written; i++) log.write('info', `line.${i}`, { text: 'x'.repeat(2 ** 16) })
  await rm(join(directory, 'ballast'))
  const dropped = async () => (await linesOf(file)).find((line) => line.includes('"log.dropped"') && line.endsWith('}'))
  while ((await dropped()) === undefined) await sleep(20, undefined, { signal: t.signal })
  log.write('info', 'after', {})
  await log.close()
  const events = await eventsOf(file)
  const kept = events.length - 2
  assert.ok(kept > 32 && kept < written, `${kept} were kept`)
  assert.deepEqual(events, [...Array.from({ length: kept }, (_, i) => `line.${i}`), 'log.dropped', 'after'])
  assert.equal(JSON.parse((await dropped()) ?? '').lines, written - kept)
})

test('a log that cannot be written any more can be closed', async (t) => {
  const directory = await smallDirectory(t)
  const log = await openLog(join(directory, 'server.log'))
  await fill(directory)
  log.write('error', 'lost', { text: 'x'.repeat(2 * PAGE) })
  await log.close()
})
