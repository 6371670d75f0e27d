import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { newSandboxId } from '@icebox/model'
import { type NewEntry, SandboxLogs } from './logs.ts'

async function place(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-logs-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  return { directory, open: () => new SandboxLogs(directory, () => undefined), sandbox: newSandboxId() }
}

const output = (text: string, end: number): NewEntry => ({ source: 'stdout', text, exec: '7', of: 'start', end })
const textsOf = async (logs: SandboxLogs, sandbox: string) =>
  (await Array.fromAsync(logs.read(sandbox, { follow: false }, AbortSignal.timeout(5_000)))).map(({ text }) => text)

test('the output of a run is written once, however often somebody begins to', async (t) => {
  const { open, sandbox } = await place(t)
  const logs = open()
  const first = Promise.withResolvers<void>()
  const writing = logs.during(sandbox, 'run', async (append) => {
    await append(output('once', 4))
    await first.promise
  })
  await logs.during(sandbox, 'run', (append) => append(output('once', 4)))
  await logs.during(sandbox, 'next run', (append) => append(output('more', 8)))
  first.resolve()
  await writing
  await logs.during(sandbox, 'run', (append) => append(output('again', 13)))
  assert.deepEqual(await textsOf(logs, sandbox), ['once', 'more', 'again'])
  await logs.close()
})

test('what is in the file counts as here after a start of the server', async (t) => {
  const { open, sandbox } = await place(t)
  const before = open()
  await before.during(sandbox, 'run', (append) => append(output('hello', 5)))
  const logs = open()
  assert.deepEqual((await logs.ends(sandbox)).get('7'), { stdout: 5, stderr: 0 })
  const late = AbortSignal.timeout(5_000)
  await logs.until(sandbox, '7', { stdout: 5, stderr: 0 }, late)
  assert.equal(late.aborted, false)
})

test('what is said after a sandbox has gone makes no file', async (t) => {
  const { directory, open, sandbox } = await place(t)
  const logs = open()
  const gone = Promise.withResolvers<void>()
  const writing = logs.during(sandbox, 'run', async (append) => {
    await append(output('early', 5))
    await gone.promise
    await append(output('late', 9))
  })
  logs.append(sandbox, { source: 'lifecycle', text: 'deleting' })
  await logs.remove(sandbox)
  gone.resolve()
  await writing
  await logs.close()
  assert.deepEqual(await readdir(directory), [])
})

test('files that a crash has parted from their sandboxes go', async (t) => {
  const { directory, open, sandbox } = await place(t)
  const before = open()
  await before.during(sandbox, 'run', (append) => append(output('mine', 4)))
  const other = newSandboxId()
  for (const file of [`${other}.jsonl`, `${other}.1.jsonl`, `${sandbox}.1.jsonl`])
    await writeFile(join(directory, file), '')
  await open().keepOnly((name) => name === sandbox)
  assert.deepEqual((await readdir(directory)).sort(), [`${sandbox}.1.jsonl`, `${sandbox}.jsonl`])
})

test('what is no file of a log is left alone', async (t) => {
  const { directory, open } = await place(t)
  const strange = ['lost+found', `${newSandboxId()}.backup`]
  for (const name of strange) await mkdir(join(directory, name), { recursive: true })
  await open().keepOnly(() => false)
  assert.deepEqual((await readdir(directory)).sort(), [...strange].sort())
})

test('who writes faster than the disk takes it waits', async (t) => {
  const { directory, open, sandbox } = await place(t)
  const logs = open()
  const piece = 'x'.repeat(2 ** 16)
  const onDisk = async () => (await stat(join(directory, `${sandbox}.jsonl`)).catch(() => undefined))?.size ?? 0
  let written = 0
  await logs.during(sandbox, 'run', async (append) => {
    for (let count = 0; count < 12; count += 1) {
      written += piece.length
      await append(output(piece, written))
      const ahead = written - (await onDisk())
      assert.ok(ahead <= 2 ** 18, `${ahead} bytes wait`)
    }
  })
  assert.ok((await onDisk()) > written)
})

/** Logs on a disk of their own, which is full until room is made. */
async function onFullDisk(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-logs-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'icebox-test', directory])
  t.after(async () => {
    execFileSync('umount', ['--lazy', directory])
    await rm(directory, { recursive: true })
  })
  const others = join(directory, 'others')
  await assert.rejects(writeFile(others, Buffer.alloc(2 ** 24)), { code: 'ENOSPC' })
  const logs = new SandboxLogs(directory, () => undefined)
  return { directory, logs, makeRoom: () => rm(others), sandbox: newSandboxId() }
}

async function eventually(condition: () => Promise<boolean>, t: TestContext): Promise<void> {
  while (!(await condition())) await sleep(20, undefined, { signal: t.signal })
}

test('output that a full disk does not take waits, and is whole and in order when there is room', async (t) => {
  const { directory, logs, makeRoom, sandbox } = await onFullDisk(t)
  const pieces = Array.from({ length: 8 }, (_, i) => `${i}:${'x'.repeat(2 ** 16)}`)
  let appended = 0
  const writing = logs.during(sandbox, 'run', async (append) => {
    for (const [i, piece] of pieces.entries()) {
      await append(output(piece, i + 1))
      appended += 1
    }
  })
  await eventually(async () => appended > 0 && (await readdir(directory)).includes(`${sandbox}.jsonl`), t)
  assert.ok(appended < pieces.length, 'the output was not held back')
  await makeRoom()
  await writing
  assert.deepEqual(await textsOf(logs, sandbox), pieces)
  await logs.close()
})

test('what waits for nobody is kept while the disk is full, so much of it, and the log tells how many are missing', async (t) => {
  const { logs, makeRoom, sandbox } = await onFullDisk(t)
  const text = (i: number) => `${i}:${'x'.repeat(2 ** 12)}`
  const written = 200
  for (let i = 0; i < written; i++) logs.append(sandbox, { source: 'lifecycle', text: text(i) })
  await makeRoom()
  await eventually(async () => (await textsOf(logs, sandbox)).some((said) => said.includes('were dropped')), t)
  logs.append(sandbox, { source: 'lifecycle', text: 'after' })
  const texts = await textsOf(logs, sandbox)
  const kept = texts.length - 2
  assert.ok(kept > 50 && kept < written, `${kept} were kept`)
  assert.deepEqual(
    texts.slice(0, kept),
    Array.from({ length: kept }, (_, i) => text(i)),
  )
  assert.match(texts[kept] ?? '', new RegExp(`^\\[${written - kept} entries were dropped`))
  assert.equal(texts.at(-1), 'after')
  await logs.close()
})
