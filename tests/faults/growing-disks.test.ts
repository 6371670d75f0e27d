import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, open, rm, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { openIcebox, type RunningIcebox } from '@icebox/cli'
import { BASE_IMAGE } from '@icebox/node'
import { Icebox, type Sandbox } from '@icebox/sdk'
import { openDataDirectory } from '@icebox/snapshot'

/** A data directory on a small ext4 of its own, so that it can be filled. */
const DISK_MIB = 3072
const signal = () => AbortSignal.timeout(120_000)

let scratch = ''
let data = ''
let server: RunningIcebox
let icebox: Icebox

async function start(): Promise<void> {
  server = await openIcebox(
    {
      dataDirectory: data,
      reach: { listen: { host: '127.0.0.1', port: 0 } },
      report: () => undefined,
      slots: 0,
      onShutdown: () => undefined,
    },
    signal(),
  )
  icebox = new Icebox({ url: server.url, dataDirectory: data })
}

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'icebox-growing-'))
  data = join(scratch, 'data')
  execFileSync('truncate', ['-s', `${DISK_MIB}M`, join(scratch, 'disk')])
  execFileSync('mke2fs', ['-q', '-t', 'ext4', '-m', '0', join(scratch, 'disk')])
  execFileSync('mkdir', [data])
  execFileSync('mount', ['-o', 'loop', join(scratch, 'disk'), data])
  await start()
  const image = await icebox.images.pull(BASE_IMAGE)
  await icebox.templates.build({ name: 'base', image: image.digest, size: { memoryMiB: 128, diskMiB: 4096 } })
})

after(async () => {
  try {
    // Room, when a failed test has left none, for what the end of the sandboxes writes.
    execFileSync('sh', ['-c', `rm -rf ${data}/images/* ${data}/tmp/*`])
    await server.close('kill', signal())
  } finally {
    const { run, close } = await openDataDirectory(data)
    await close()
    execFileSync('umount', ['--lazy', data])
    await rm(scratch, { recursive: true, force: true })
    await rm(run, { recursive: true, force: true })
  }
})

async function bytesFree(): Promise<number> {
  const { bavail, bsize } = await statfs(data)
  return bavail * bsize
}

const stateOf = async (sandbox: Sandbox) => (await sandbox.info()).status

test('sandboxes whose disks grow are stopped one after the other, with the reason, before the disk of the host is full', async () => {
  const quiet = await icebox.sandboxes.create({ template: 'base' })
  const growing = await Promise.all([1, 2, 3].map(() => icebox.sandboxes.create({ template: 'base' })))
  for (const sandbox of growing)
    await sandbox.spawn(['sh', '-c', 'while :; do head -c 50000000 /dev/zero >> /root/data || exit; done'])
  let least = Number.POSITIVE_INFINITY
  for (;;) {
    least = Math.min(least, await bytesFree())
    const states = await Promise.all(growing.map(stateOf))
    const stopped = states.every(({ reason }) => reason === 'DiskFull')
    if (stopped && states.some(({ state }) => state === 'Paused')) break
    assert.ok(
      states.every(({ state }) => state !== 'Failed'),
      JSON.stringify(states),
    )
    await sleep(50)
  }
  assert.ok(least > 0, 'the disk of the host was full')
  // Whoever does not grow goes on.
  assert.equal((await stateOf(quiet)).state, 'Running')
  assert.equal((await quiet.exec(['true'])).exitCode, 0)
  for (const sandbox of [...growing, quiet]) await sandbox.delete()
})

test('a build whose disk grows without end fails before the disk of the host is full, and gives its disk back', async () => {
  const before = await bytesFree()
  const { images } = icebox
  const [image] = await Array.fromAsync(images.list())
  assert.ok(image !== undefined)
  const build = icebox.templates.build({
    name: 'growing',
    image: image.digest,
    size: { memoryMiB: 128, diskMiB: 4096 },
    // At a pace that a busy host can see.
    startCommand: ['sh', '-c', 'while sleep 0.3; do head -c 10000000 /dev/zero >> /root/data || exit; done'],
    readyCommand: ['false'],
  })
  let least = before
  const looking = setInterval(async () => {
    least = Math.min(least, await bytesFree())
  }, 50)
  try {
    await assert.rejects(build, /its disk grew fastest/)
  } finally {
    clearInterval(looking)
  }
  assert.ok(least > 0, 'the disk of the host was full')
  while ((await bytesFree()) < before - 2 ** 26) await sleep(50)
})

test('on a disk that is full to the last byte deletes and expiries go on', async () => {
  const [first, second] = await Promise.all([1, 2].map(() => icebox.sandboxes.create({ template: 'base' })))
  assert.ok(first !== undefined && second !== undefined)
  await first.pause()
  while (!existsSync(join(data, 'ballast'))) await sleep(50)
  const others = join(data, 'others')
  const handle = await open(others, 'a')
  const fill = async () => {
    for (let size = 2 ** 20; size >= 512; size = Math.floor(size / 2))
      for (;;) if ((await handle.write(Buffer.alloc(size, 'x')).catch(() => undefined)) === undefined) break
  }
  try {
    await fill()
    assert.ok((await bytesFree()) < 2 ** 16)
    await first.delete()
    await fill()
    await second.renew({ timeout: 1 })
    while ((await Array.fromAsync(icebox.sandboxes.list())).length > 0) await sleep(50)
    await fill()
    await server.close('keep', signal())
    await open(join(data, 'ballast'), 'r').then(
      (file) => file.close(),
      () => assert.fail('no ballast is left to start with'),
    )
    await start()
    assert.equal((await icebox.health()).status, 'ok')
  } finally {
    await handle.close()
    await rm(others, { force: true })
  }
})
