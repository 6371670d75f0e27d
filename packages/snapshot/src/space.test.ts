import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createWriteStream, existsSync, statSync } from 'node:fs'
import { mkdtemp, open, rm, statfs, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { isError } from '@icebox/model'
import { Ballast } from './ballast.ts'
import { claimSpace, freeBytes, requireSpace, spaceOf, withinSpace } from './space.ts'

const MIB = 2 ** 20
const DISK_MIB = 512

/** A disk of its own. */
async function disk(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'icebox-space-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MIB}m`, 'icebox-test', path])
  t.after(async () => {
    execFileSync('umount', ['--lazy', path])
    await rm(path, { recursive: true })
  })
  return path
}

const full = (thrown: unknown) =>
  isError(thrown, 'NoSpace') && /needs \d+ MiB .* where \d+ MiB are free/.test(thrown.message)

async function bytesFree(path: string): Promise<number> {
  const { bavail, bsize } = await statfs(path)
  return bavail * bsize
}

/** Takes all of the disk, as those do who ask nobody. Removing the file gives it back. */
async function fill(path: string): Promise<string> {
  const file = join(path, 'others')
  const handle = await open(file, 'a')
  const block = Buffer.alloc(MIB, 'x')
  try {
    for (;;) await handle.write(block)
  } catch {
    // Full.
  } finally {
    await handle.close()
  }
  return file
}

async function* pieces(count: number): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < count; i++) yield Buffer.alloc(MIB, 'p')
}

test('what one writer is promised no other is, until it is written or given back', async (t) => {
  const path = await disk(t)
  const free = freeBytes(path)
  assert.ok(free < (await bytesFree(path)), 'nothing is kept in reserve')
  const file = join(path, 'file')
  await writeFile(file, '')
  const first = claimSpace(path, free * 0.6, 'one', { written: () => statSync(file).blocks * 512 })
  assert.throws(() => claimSpace(path, free * 0.6, 'another'), full)
  assert.throws(() => first.grow(free * 0.6), full)
  await writeFile(file, Buffer.alloc(free * 0.6))
  // Now it is in the file system's own count, and not counted twice.
  claimSpace(path, free * 0.35, 'another').release()
  await truncate(file, 0)
  assert.throws(() => requireSpace(path, free * 0.6, 'another'), full)
  first.release()
  first.release()
  claimSpace(path, free * 0.9, 'another').release()
})

test('only what is urgent takes of the reserve', async (t) => {
  const path = await disk(t)
  const { freeBytes: free, reserveBytes } = spaceOf(path)
  const wanted = free + reserveBytes / 2
  assert.throws(() => claimSpace(path, wanted, 'a save'), full)
  claimSpace(path, wanted, 'a save', { urgent: true }).release()
})

test('a stream of unknown length ends before the reserve is touched, and others are promised none of its room', async (t) => {
  const path = await disk(t)
  const file = join(path, 'upload')
  const { reserveBytes } = spaceOf(path)
  const endless = withinSpace(pieces(DISK_MIB * 2), file, undefined, 'the upload')
  await assert.rejects(pipeline(endless, createWriteStream(file)), full)
  assert.ok((await bytesFree(path)) >= reserveBytes)
  await rm(file)
  const free = freeBytes(path)
  const slow = withinSpace(pieces(3), file, undefined, 'the upload')
  await slow.next()
  assert.ok(freeBytes(path) < free)
  await slow.return(undefined)
  assert.equal(freeBytes(path), free)
})

test('a stream that says how long it is and does not fit is refused before it is read', async (t) => {
  const path = await disk(t)
  let read = false
  const content = async function* () {
    read = true
    yield* pieces(1)
  }
  const upload = withinSpace(content(), join(path, 'upload'), DISK_MIB * MIB, 'the upload')
  await assert.rejects(pipeline(upload, createWriteStream(join(path, 'upload'))), full)
  assert.ok(!read)
})

test('the ballast is given up once on a full disk, and made again when there is room', async (t) => {
  const path = await disk(t)
  const log = join(path, 'icebox.db-wal')
  await writeFile(log, '')
  const ballast = new Ballast(path, join(path, 'icebox.db'))
  t.after(() => ballast.close())
  const file = join(path, 'ballast')
  const others = await fill(path)
  // The log of the database has its room, whatever happens.
  await writeFile(log, Buffer.alloc(4 * MIB), { flag: 'a' })
  await assert.rejects(writeFile(join(path, 'more'), Buffer.alloc(4 * MIB)), /ENOSPC/)
  assert.ok(ballast.release())
  assert.ok(!ballast.release())
  await writeFile(join(path, 'more'), Buffer.alloc(4 * MIB))
  await rm(others)
  while (!existsSync(file)) await sleep(50)
  assert.ok(statSync(file).blocks * 512 >= 4 * MIB)
})
