import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import type { Sandbox } from '@icebox/sdk'
import { checkRemains } from './faults/history/remains.ts'
import { takeCensus } from './faults/load/census.ts'
import { buildBase, output, ServerProcess } from './server-process.ts'

const BURST = 50
const PAUSED = 200
/** Paused one after the other with so many under way at once. */
const AT_ONCE = 8
const SETTLE_MS = 60_000
/** What 180 more paused sandboxes may add to the server's own memory: their records, read and written, and garbage. */
const GROWTH_BYTES = 128 * 2 ** 20

let server: ServerProcess
before(async () => {
  server = await ServerProcess.start('burst')
  await buildBase(server.icebox, { memoryMiB: 64, diskMiB: 64 })
})
after(() => server[Symbol.asyncDispose]())

const create = () => server.icebox.sandboxes.create({ template: 'base' })
/** What is there once all is quiet. */
const census = () => takeCensus(server.icebox, server.dataDirectory, () => performance.now(), SETTLE_MS)

async function deleteAll(): Promise<void> {
  const sandboxes = await server.icebox.sandboxes.list()
  await inTurns(sandboxes, (sandbox) => sandbox.delete())
  const { sandboxes: left, ...rest } = await census()
  assert.deepEqual(left, [])
  assert.deepEqual(checkRemains([{ sandboxes: left, ...rest }]), [])
}

/** A few at once, until all are done. */
async function inTurns<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = items.values()
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (const item of rest) await work(item)
    }),
  )
}

/** Resident bytes of a process. */
async function residentBytes(pid: number): Promise<number> {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]
  assert.ok(kib !== undefined)
  return Number(kib) * 1024
}

/** The words of every process that it has started, or that these have. */
async function descendants(ancestor: number): Promise<string[][]> {
  const parents = new Map<number, number>()
  for (const name of (await readdir('/proc')).filter((each) => /^\d+$/.test(each))) {
    const status = await readFile(`/proc/${name}/status`, 'utf8').catch(() => '')
    parents.set(Number(name), Number(/^PPid:\s+(\d+)$/m.exec(status)?.[1]))
  }
  const isBelow = (pid: number | undefined): boolean => pid === ancestor || (!!pid && isBelow(parents.get(pid)))
  const found = [...parents].filter(([, parent]) => isBelow(parent)).map(([pid]) => pid)
  const words = found.map(async (pid) => (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0'))
  return (await Promise.all(words)).filter(([program]) => program !== '')
}

test(`${BURST} creates at once all succeed, each a sandbox of its own that works`, async () => {
  const made = await Promise.all(Array.from({ length: BURST }, create))
  assert.equal(new Set(made.map(({ id }) => id)).size, BURST)
  const machineIds = await Promise.all(made.map((sandbox) => output(sandbox.exec(['cat', '/etc/machine-id']))))
  assert.equal(new Set(machineIds).size, BURST)
  await deleteAll()
})

test(`${PAUSED} paused sandboxes cost no process and no resident memory`, async () => {
  const makePaused = async () => {
    const sandbox = await create()
    await output(sandbox.exec(['sh', '-c', `echo ${sandbox.id} > /dev/shm/mark`]))
    await sandbox.pause()
  }
  const [few, many] = [PAUSED / 10, PAUSED - PAUSED / 10]
  await inTurns(Array.from({ length: few }), makePaused)
  await census()
  const before = await residentBytes(server.pid)
  await inTurns(Array.from({ length: many }), makePaused)

  const { sandboxes, node } = await census()
  assert.equal(sandboxes.length, PAUSED)
  assert.ok(sandboxes.every(({ state }) => state === 'Paused'))
  // Containers that were made ahead are there as without any sandbox.
  const slots = new Set(node.slots)
  for (const [kind, ids] of Object.entries(node.containers))
    assert.deepEqual(
      ids.filter((id) => !slots.has(id)),
      [],
      `${kind} of paused sandboxes`,
    )
  for (const words of await descendants(server.pid))
    assert.ok(
      words.some((word) => slots.has(word)),
      `the server has started ${words.join(' ')}`,
    )
  const growth = (await residentBytes(server.pid)) - before
  assert.ok(growth < GROWTH_BYTES, `the server grew by ${growth} bytes`)

  const some: Sandbox[] = (await server.icebox.sandboxes.list()).filter((_, index) => index % 40 === 0)
  for (const sandbox of some) {
    await sandbox.resume()
    assert.equal(await output(sandbox.exec(['cat', '/dev/shm/mark'])), sandbox.id)
  }
  await deleteAll()
})
