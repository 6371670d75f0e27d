import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { makeOnce } from './made.ts'

const MODULE = new URL('./made.ts', import.meta.url).href
const minute = () => AbortSignal.timeout(60_000)

async function place(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'made-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  return { directory, target: join(directory, 'thing-1.2') }
}

test('a thing that several want at once is made once, whole, and nothing else stays', async (t) => {
  const { directory, target } = await place(t)
  let times = 0
  const make = async (scratch: string) => {
    times++
    assert.deepEqual(await readdir(scratch), [])
    await mkdir(join(scratch, 'inside'))
    await writeFile(join(scratch, 'inside', 'file'), 'content')
    return join(scratch, 'inside')
  }
  await Promise.all(Array.from({ length: 3 }, () => makeOnce(target, make, minute())))
  assert.equal(times, 1)
  assert.equal(await readFile(join(target, 'file'), 'utf8'), 'content')
  assert.deepEqual((await readdir(directory)).sort(), ['thing-1.2', 'thing-1.2.lock'])
})

test('a failure leaves nothing, and the next try makes it', async (t) => {
  const { directory, target } = await place(t)
  const failing = async (scratch: string): Promise<string> => {
    await writeFile(join(scratch, 'half'), '')
    throw new Error('compiler error')
  }
  await assert.rejects(makeOnce(target, failing, minute()), /compiler error/)
  assert.deepEqual(await readdir(directory), ['thing-1.2.lock'])
  await makeOnce(target, async (scratch) => scratch, minute())
  assert.deepEqual(await readdir(target), [])
})

test('what a killed process had half made is not taken for whole, and goes', async (t) => {
  const { directory, target } = await place(t)
  const script = `import { writeFileSync } from 'node:fs'
    import { makeOnce } from ${JSON.stringify(MODULE)}
    await makeOnce(${JSON.stringify(target)}, async (scratch) => {
      writeFileSync(scratch + '/half', '')
      console.log('half made')
      await new Promise((resolve) => setTimeout(resolve, 1e6))
      return scratch
    }, AbortSignal.timeout(60_000))`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  assert.equal((await readdir(directory)).filter((name) => name.includes('.tmp-')).length, 1)
  const exit = once(child, 'exit')
  child.kill('SIGKILL')
  await exit
  await makeOnce(
    target,
    async (scratch) => {
      await writeFile(join(scratch, 'whole'), '')
      return scratch
    },
    minute(),
  )
  assert.deepEqual(await readdir(target), ['whole'])
  assert.deepEqual((await readdir(directory)).sort(), ['thing-1.2', 'thing-1.2.lock'])
})
