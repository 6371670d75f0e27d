import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { asSnapshotId, newSnapshotId } from '@icebox/model'
import { type Keyring, openKeyring } from './keyring.ts'
import { openSnapshots } from './snapshots.ts'

const MODULE = new URL('./index.ts', import.meta.url).href
const DIGEST = `sha256:${'5'.repeat(64)}`
const INPUT = {
  kind: 'memory',
  driver: { name: 'gvisor', version: '1', digest: DIGEST, flags: [], cpuFeatures: [] },
  size: { cpu: 1, memoryMiB: 512, diskMiB: 1024 },
  imageDigest: DIGEST,
  agent: { version: '0.1.0', digest: DIGEST },
  labels: {},
  env: {},
  files: ['checkpoint.img', 'pages.img'],
}
/** A program that kills itself with SIGKILL right before the step with this number: a call that changes or syncs files. */
const program = ({ root, directory, tmp }: Place, killAt: number, body: string): string => `
  import fs from 'node:fs'
  import { syncBuiltinESMExports } from 'node:module'
  import { join } from 'node:path'
  let steps = 0
  const step = () => { if (++steps === ${killAt}) process.kill(process.pid, 'SIGKILL') }
  for (const name of ['chmod', 'mkdir', 'mkdtemp', 'open', 'rename', 'rm']) {
    const real = fs.promises[name]
    fs.promises[name] = (...args) => { step(); return real(...args) }
  }
  const probe = await fs.promises.open('/dev/null')
  const handles = Object.getPrototypeOf(probe)
  await probe.close()
  for (const name of ['sync', 'writeFile']) {
    const real = handles[name]
    handles[name] = function (...args) { step(); return real.apply(this, args) }
  }
  syncBuiltinESMExports()
  const { writeFile } = fs.promises
  const { openSnapshots, openKeyring } = await import(${JSON.stringify(MODULE)})
  const signal = new AbortController().signal
  const keyring = await openKeyring(${JSON.stringify(root)})
  const snapshots = openSnapshots({ ...${JSON.stringify({ directory, tmp })}, keyring })
  ${body}
  await snapshots.close(signal)
  console.log('end')`

async function place(t: TestContext): Promise<Place> {
  const root = await mkdtemp(join(tmpdir(), 'icebox-crash-'))
  t.after(() => rm(root, { recursive: true, force: true }))
  const [directory, tmp] = [join(root, 'snapshots'), join(root, 'tmp')]
  await mkdir(directory)
  await mkdir(tmp)
  return { root, directory, tmp, keyring: await openKeyring(root), cache: join(root, 'cache') }
}

interface Place {
  root: string
  directory: string
  tmp: string
  keyring: Keyring
  /** Where Node keeps the compiled modules, so that each run starts sooner. */
  cache: string
}

/** What the body said, and whether it came to its end. */
function run(where: Place, killAt: number, body: string): { said: string[]; ended: boolean } {
  const { signal, status, stdout } = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', program(where, killAt, body)],
    {
      encoding: 'utf8',
      env: { ...process.env, NODE_COMPILE_CACHE: where.cache },
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: 120_000,
    },
  )
  const said = stdout.split('\n').filter(Boolean)
  const ended = said.includes('end')
  if (ended) assert.equal(status, 0)
  else assert.equal(signal, 'SIGKILL')
  return { said, ended }
}

/** Runs the body again and again, killed one step later each time, until it comes to its end. Returns how often. */
async function atEveryStep(
  where: Place,
  body: () => string,
  check: (said: string[]) => Promise<void>,
): Promise<number> {
  // Only a process that ends by itself leaves the compiled modules behind.
  run(where, 0, '')
  for (let killAt = 1; ; killAt++) {
    const { said, ended } = run(where, killAt, body())
    await check(said)
    if (ended) return killAt
  }
}

test('killed before any step of a save, its digests or its removal, a snapshot is complete or absent', async (t) => {
  const where = await place(t)
  let id = newSnapshotId()
  const outcomes = { absent: 0, complete: 0, removed: 0 }
  const runs = await atEveryStep(
    where,
    () => {
      id = newSnapshotId()
      return `
        const draft = await snapshots.begin('${id}', 1000, signal)
        await writeFile(join(draft.directory, 'checkpoint.img'), 'c'.repeat(5000))
        await writeFile(join(draft.directory, 'pages.img'), 'p'.repeat(300_000))
        await draft.commit(${JSON.stringify(INPUT)}, signal)
        fs.writeSync(1, 'committed\\n')
        await snapshots.digest('${id}', signal)
        fs.writeSync(1, 'removing\\n')
        await snapshots.remove('${id}', signal)
        fs.writeSync(1, 'removed\\n')`
    },
    async (said) => {
      const later = openSnapshots(where)
      try {
        await later.recover(t.signal)
        const there = (await later.list(t.signal)).includes(asSnapshotId(id))
        // Of one that is there, digests may still have to be computed.
        if (there) await later.digest(asSnapshotId(id), t.signal)
        assert.deepEqual(await readdir(where.tmp), [])
        if (there) assert.notEqual(await later.find(asSnapshotId(id), t.signal), 'damaged')
        if (said.includes('committed') && !said.includes('removing')) assert.ok(there, 'a committed snapshot is lost')
        if (said.includes('removed')) assert.ok(!there, 'a removed snapshot is back')
        if (there) {
          const left = (await readdir(join(where.directory, id))).sort()
          assert.deepEqual(left, ['blobs.json', 'files', 'manifest.json'])
          assert.equal((await later.open(id, t.signal)).bytes, 305_000)
          assert.deepEqual(await later.verify(id, t.signal), [])
          await later.remove(id, t.signal)
        }
        outcomes[there ? 'complete' : said.includes('committed') ? 'removed' : 'absent']++
      } finally {
        await later.close(t.signal)
      }
    },
  )
  // Every step had its turn, and each outcome was seen.
  assert.ok(runs > 25, `${runs} runs`)
  for (const [outcome, times] of Object.entries(outcomes)) assert.ok(times > 1, `${outcome}: ${times}`)
  t.diagnostic(`${runs} runs: ${JSON.stringify(outcomes)}`)
})
