import assert from 'node:assert/strict'
import { test } from 'node:test'
import { asSnapshotId, isError } from '@icebox/model'
import { gate } from './gate.ts'
import type { DriverFacts } from './manifest.ts'

const HERE: DriverFacts = {
  name: 'gvisor',
  version: '2',
  digest: `sha256:${'a'.repeat(64)}`,
  flags: ['--direct', '--allow-suid'],
  cpuFeatures: ['avx2', 'sse4_2', 'amx'],
}
const id = asSnapshotId('k3v9x2m7q1w8e5r4t6y0')

/** Null when it may be restored, else the words of the refusal. */
function verdict(kind: 'memory' | 'filesystem', driver: Partial<DriverFacts>): string | null {
  try {
    gate({ id, kind, driver: { ...HERE, ...driver } }, HERE)
    return null
  } catch (thrown) {
    assert.ok(isError(thrown, 'SnapshotIncompatible'))
    assert.match(thrown.message, new RegExp(`snapshot ${id}`))
    return thrown.message
  }
}

test('what was taken with the same may be restored, in any order of flags and with fewer CPU features', () => {
  assert.equal(verdict('memory', {}), null)
  assert.equal(verdict('memory', { flags: ['--allow-suid', '--direct'] }), null)
  assert.equal(verdict('memory', { cpuFeatures: ['avx2'] }), null)
})

test('a refusal names what differs', () => {
  assert.match(verdict('memory', { name: 'qemu' }) ?? '', /needs the driver qemu, and this machine uses gvisor/)
  assert.match(verdict('memory', { version: '1' }) ?? '', /needs gvisor 1, and 2 is here/)
  assert.match(verdict('memory', { digest: `sha256:${'b'.repeat(64)}` }) ?? '', /build sha256:bbbbbbbbbbbb of gvisor 2/)
  assert.match(verdict('memory', { flags: ['--direct', '--x'] }) ?? '', /with --x.*without --allow-suid/)
  assert.match(
    verdict('memory', { cpuFeatures: ['avx2', 'avx512f', 'sha_ni'] }) ?? '',
    /the CPU here lacks avx512f, sha_ni$/,
  )
  const all = verdict('memory', { version: '1', flags: [], cpuFeatures: ['avx512f'] }) ?? ''
  assert.match(all, /gvisor 1.*--direct.*avx512f/)
})

test('a filesystem snapshot boots, so only the driver must be the same', () => {
  assert.equal(verdict('filesystem', { version: '1', digest: 'other', flags: [], cpuFeatures: ['avx512f'] }), null)
  assert.match(verdict('filesystem', { name: 'qemu' }) ?? '', /qemu/)
})
