import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Snapshot, Template } from '@icebox/model'
import { ofProject } from '../cache/collection.ts'
import { summaryOf } from '../cache/summary.ts'
import { metadataOf } from '../testing.ts'
import { overKept } from './retention.ts'

const metadata = (name: string, second: number) =>
  metadataOf(name, { createdAt: new Date(second * 1000).toISOString() })
const size = { cpu: 1, memoryMiB: 128, diskMiB: 1024 }
const template = (name: string, keepSnapshots?: number): Template => ({
  kind: 'Template',
  metadata: metadata(name, 0),
  spec: { image: 'i', size, env: {}, hidden: false, ...(keepSnapshots === undefined ? {} : { keepSnapshots }) },
  status: { state: 'ready', lastTransitionAt: new Date(0).toISOString() },
})
const snapshot = (
  name: string,
  second: number,
  of: string | undefined,
  other: { purpose?: Snapshot['spec']['purpose']; state?: Snapshot['status']['state'] } = {},
): Snapshot => ({
  kind: 'Snapshot',
  metadata: metadata(name, second),
  spec: {
    kind: 'memory',
    sandbox: 's',
    execution: 'e',
    imageName: 'i',
    size,
    env: {},
    purpose: other.purpose ?? 'user',
    ...(of === undefined ? {} : { template: of }),
  },
  status: { state: other.state ?? 'ready', lastTransitionAt: new Date(0).toISOString() },
})

test('over a keep count are the oldest that were asked for, are ready and are of the template', () => {
  const snapshots = [
    snapshot('a', 3, 'two'),
    snapshot('b', 1, 'two'),
    snapshot('c', 2, 'two'),
    snapshot('d', 4, 'two', { state: 'creating' }),
    snapshot('e', 5, 'two', { state: 'failed' }),
    snapshot('f', 0, 'two', { purpose: 'pause' }),
    snapshot('g', 0, 'all'),
    snapshot('h', 0, undefined),
    snapshot('i', 0, 'gone'),
  ]
  const own = ofProject(
    'Snapshot',
    snapshots.map((each) => summaryOf('Snapshot', each)),
  )
  const over = (of: Template) => overKept(own, summaryOf('Template', of)).map(({ name }) => name)
  assert.deepEqual(over(template('two', 2)), ['b'])
  assert.deepEqual(over(template('all')), [])
})
