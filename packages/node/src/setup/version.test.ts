import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { atLeast, versionIn } from './version.ts'

test('versions are found in what programs say of themselves', () => {
  assert.equal(versionIn('rustc 1.63.0 (4b91a6ea7 2022-08-08)'), '1.63.0')
  assert.equal(versionIn('mkfs.erofs (erofs-utils) 1.5'), '1.5')
  assert.equal(versionIn('ip utility, iproute2-6.1.0, libbpf 1.1.2'), '6.1.0')
  assert.equal(versionIn('no number'), undefined)
})

test('versions are ordered as numbers, part by part', () => {
  const version = fc.array(fc.nat(99), { minLength: 1, maxLength: 4 })
  fc.assert(
    fc.property(version, version, (one, other) => {
      const [a, b] = [one.join('.'), other.join('.')]
      const length = Math.max(one.length, other.length)
      const padded = (parts: number[]) =>
        Array.from({ length }, (_, index) => String(parts[index] ?? 0).padStart(2, '0')).join()
      assert.equal(atLeast(a, b), padded(one) >= padded(other))
    }),
  )
})
