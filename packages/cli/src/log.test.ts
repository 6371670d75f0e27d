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
async function smallDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-log-'))
  t.after(async () => {
    await exec('umount', [directory])
    await rm(directory, { recursive: true })
  })
  await exec('mount', ['-t', 'tmpfs', '-o', `size=${16 * PAGE}`, 'tmpfs', directory])
  return directory
}

const fill = (directory: string) =>
  assert.rejects(writeFile(join(directory, 'ballast'), Buffer.alloc(32 * PAGE)), { code: 'ENOSPC' })

test('a log on a full disk drops lines, goes on when there is room again, and says how many are missing', async (t) => {
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
  await rm(join(directory, 'ballast'))
  log.write('info', 'after', {})
  await log.close()
  const lines = (await readFile(file, 'utf8')).split('\n')
  assert.equal(lines.length, 5, lines.join('\n'))
  const [before = '', torn, missing = '', after = '', end] = lines
  assert.match(torn ?? '', /too\.long.*x$/)
  assert.equal(end, '')
  assert.equal(JSON.parse(before).event, 'before')
  const { event, lines: count } = JSON.parse(missing)
  assert.deepEqual([event, count], ['log.dropped', 1])
  assert.equal(JSON.parse(after).event, 'after')
})

test('a log that cannot be written any more can be closed', async (t) => {
  const directory = await smallDirectory(t)
  const log = await openLog(join(directory, 'server.log'))
  await fill(directory)
  log.write('error', 'lost', { text: 'x'.repeat(2 * PAGE) })
  await log.close()
})
