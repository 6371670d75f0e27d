import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type OciSpec, ociSpec, placed, specKey } from './spec.ts'

const SPEC = { imageDigest: 'sha256:aa', size: { cpu: 1, memoryMiB: 256, diskMiB: 512 } }
const PLACE = { image: '/data/image', agent: '/data/agent', network: '/run/network', cgroup: '/icebox/x' }

test('equal machines have equal specs, and each of image, cpu, memory, disk and driver makes another', () => {
  assert.deepEqual(ociSpec(SPEC, '1'), ociSpec(structuredClone(SPEC), '1'))
  const others = [
    ociSpec({ ...SPEC, imageDigest: 'sha256:bb' }, '1'),
    ociSpec({ ...SPEC, size: { ...SPEC.size, cpu: 2 } }, '1'),
    ociSpec({ ...SPEC, size: { ...SPEC.size, memoryMiB: 257 } }, '1'),
    ociSpec({ ...SPEC, size: { ...SPEC.size, diskMiB: 513 } }, '1'),
    ociSpec(SPEC, '2'),
  ]
  assert.equal(new Set([ociSpec(SPEC, '1'), ...others].map(specKey)).size, 6)
})

test('a place changes only where things are', () => {
  const path = fc.string({ minLength: 1 }).map((text) => `/${text}`)
  const place = fc.record({ image: path, agent: path, network: path, cgroup: path })
  const strip = ({ mounts, annotations, linux, ...rest }: OciSpec) => ({
    ...rest,
    mounts: mounts.filter(({ type }) => type !== 'bind'),
    annotations: Object.fromEntries(Object.entries(annotations).filter(([key]) => !key.endsWith('.source'))),
    linux: { namespaces: linux.namespaces.filter(({ type }) => type !== 'network') },
  })
  const spec = ociSpec(SPEC, '1')
  fc.assert(fc.property(place, (where) => assert.deepEqual(strip(placed(spec, where)), strip(spec))))
})

test('what runsc depends on is there', () => {
  const spec = placed(ociSpec(SPEC, '1'), PLACE)
  assert.equal(spec.annotations['dev.gvisor.spec.rootfs.source'], PLACE.image)
  assert.equal(spec.annotations['dev.gvisor.spec.rootfs.options'], `size=${512 << 20}`)
  const binds = spec.mounts.filter(({ type }) => type === 'bind')
  assert.equal(binds.length, 1)
  assert.ok(binds[0]?.options?.includes('ro'))
  assert.deepEqual(
    spec.linux.namespaces.find(({ type }) => type === 'network'),
    { type: 'network', path: PLACE.network },
  )
})
