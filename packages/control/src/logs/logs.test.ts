import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
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
