import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { command, firstLine } from './command.ts'

const signal = new AbortController().signal
const minute = { deadlineMs: 60_000 }

test('a command gives its output, line by line while it runs, whole at its end', async () => {
  const lines: string[] = []
  const output = await command(
    'sh',
    ['-c', 'echo "$WORD"; echo said >&2; printf tail'],
    { ...minute, env: { WORD: 'one' }, onLine: (line) => lines.push(line) },
    signal,
  )
  assert.equal(output, 'one\ntail')
  assert.deepEqual(lines.sort(), ['one', 'said', 'tail'])
})

test('a failure says what ran, how it ended and what it said last', async () => {
  await assert.rejects(
    command('sh', ['-c', 'echo broken >&2; exit 3'], minute, signal),
    /sh -c .*exit status 3\nbroken/s,
  )
  await assert.rejects(command('sh', ['-c', 'kill -9 $$'], minute, signal), /SIGKILL/)
  await assert.rejects(command('/nonexistent/program', [], minute, signal), /ENOENT/)
})

/** Runs a shell with a child of its own, ends it by `end`, and gives the child's state afterwards. */
async function endedChild(run: (script: string) => Promise<void>): Promise<boolean> {
  const directory = await mkdtemp(join(tmpdir(), 'command-'))
  try {
    const file = join(directory, 'pid')
    await run(`sleep 1000 & echo $! > ${file}; wait`)
    const pid = Number(await readFile(file, 'utf8'))
    for (let tries = 0; tries < 500; tries++) {
      const status = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
      if (status === '' || status.includes(') Z ')) return true
      await sleep(10)
    }
    process.kill(pid, 'SIGKILL')
    return false
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

test('the deadline ends a command with its children', async () => {
  const ended = await endedChild((script) =>
    assert.rejects(command('sh', ['-c', script], { deadlineMs: 500 }, signal), /took longer than 0.5 s/),
  )
  assert.ok(ended, 'the child of the command still runs')
})

test('an abort ends a command with its children, and is what it fails with', async () => {
  const stop = new AbortController()
  const ended = await endedChild((script) => {
    const running = command('sh', ['-c', `${script}`], { ...minute, onLine: () => {} }, stop.signal)
    setTimeout(() => stop.abort(new Error('enough')), 500)
    return assert.rejects(running, /^Error: enough$/)
  })
  assert.ok(ended, 'the child of the command still runs')
})

test('the first line of a program, or nothing when it cannot be had', async () => {
  assert.equal(await firstLine('printf', ['\\n version 1 \\nmore'], signal), 'version 1')
  assert.equal(await firstLine('sh', ['-c', 'echo tool 1.5; exit 1'], signal), 'tool 1.5')
  assert.equal(await firstLine('false', [], signal), undefined)
  assert.equal(await firstLine('/nonexistent/program', [], signal), undefined)
})
