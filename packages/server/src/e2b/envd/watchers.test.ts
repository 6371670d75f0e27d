import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { FileEvent, FileInfo, Guest } from '@icebox/model'
import { ITEM_BYTES } from '@icebox/model'
import type { Call } from './call.ts'
import { SANDBOX } from './testing.ts'
import { Watchers } from './watchers.ts'

const DIRECTORY: FileInfo = {
  name: 'd',
  path: '/d',
  type: 'directory',
  size: 0,
  mode: 0o755,
  uid: 0,
  gid: 0,
  owner: 'root',
  group: 'root',
  modifiedAt: new Date(0).toISOString(),
}

/** A run whose directory is said to change so often, always with the longest name. */
function runWith(changes: number): Call {
  const event: FileEvent = { type: 'create', path: `/d/${'x'.repeat(4000)}` }
  async function* events() {
    for (let change = 0; change < changes; change++) yield event
    await new Promise(() => undefined)
  }
  const guest = new Proxy({} as Guest, {
    get: (_, name) => (name === 'stat' ? async () => DIRECTORY : async () => events()),
  })
  const hold = () => ({
    bytes: 0,
    resize: () => undefined,
    release: () => undefined,
    [Symbol.dispose]: () => undefined,
  })
  return { sandbox: SANDBOX, execution: 'run1', guest, user: undefined, hold }
}

test('watchers that nobody asks hold no more together than a run may', async () => {
  const watchers = new Watchers()
  const call = runWith(600)
  const ids: string[] = []
  for (let watcher = 0; watcher < 4; watcher++)
    ids.push(
      await watchers.create(call, { path: '/d', recursive: false, includeEntry: false }, AbortSignal.timeout(60_000)),
    )
  for (let turn = 0; turn < 5_000; turn++) await nextTurn()
  const counts = ids.map((id) => {
    try {
      return watchers.take(call.execution, id).length
    } catch (thrown) {
      assert.match(String(thrown), /changes were lost/)
      return undefined
    }
  })
  const told = counts.filter((count) => count !== undefined)
  assert.ok(told.length > 0 && told.length < ids.length, counts.join())
  assert.ok(told.length * 600 * (8000 + ITEM_BYTES) <= 8_388_608 * 2)
  for (const count of told) assert.equal(count, 600)
})
