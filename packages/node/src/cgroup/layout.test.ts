import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { layoutOf, missingControllers } from './layout.ts'
import { parseMounts } from './mounts.ts'

const mount = (point: string, type: string, options: string) =>
  `30 25 0:26 / ${point} rw,nosuid,nodev,noexec,relatime shared:9 - ${type} cgroup ${options}`

const SEPARATE = [
  mount('/sys/fs/cgroup/cpu,cpuacct', 'cgroup', 'rw,cpu,cpuacct'),
  mount('/sys/fs/cgroup/memory', 'cgroup', 'rw,memory'),
  mount('/sys/fs/cgroup/pids', 'cgroup', 'rw,pids'),
  mount('/sys/fs/cgroup/cpuset', 'cgroup', 'rw,cpuset,noprefix'),
  mount('/sys/fs/cgroup/systemd', 'cgroup', 'rw,xattr,release_agent=/lib/systemd/agent,name=systemd'),
]
const UNIFIED = mount('/sys/fs/cgroup', 'cgroup2', 'rw,nsdelegate')
const ALL = ['cpuset', 'cpu', 'io', 'memory', 'pids']
const LIMITS = { cpu: 1.5, memoryBytes: 1 << 28, pids: 100, cores: '0-1' }

describe('where control groups are', () => {
  test('version 1: each controller at its own mount, co-mounted ones at the same', () => {
    const mounts = parseMounts(SEPARATE.join('\n'), () => [])
    assert.equal(mounts.version, 1)
    assert.equal(mounts.unified, undefined)
    assert.equal(mounts.controllers.get('cpu'), '/sys/fs/cgroup/cpu,cpuacct')
    assert.equal(mounts.controllers.get('cpuacct'), '/sys/fs/cgroup/cpu,cpuacct')
    assert.equal(mounts.controllers.get('systemd'), '/sys/fs/cgroup/systemd')
    assert.deepEqual(missingControllers(mounts), [])
    assert.equal(
      layoutOf(mounts)
        .directories('/icebox/x')
        .filter((path) => path.includes('cpu,')).length,
      1,
    )
  })

  test('hybrid counts as version 1, and says where version 2 is', () => {
    const lines = [...SEPARATE, mount('/sys/fs/cgroup/unified', 'cgroup2', 'rw')]
    const mounts = parseMounts(lines.join('\n'), () => ['hugetlb'])
    assert.equal(mounts.version, 1)
    assert.equal(mounts.unified, '/sys/fs/cgroup/unified')
    assert.equal(mounts.controllers.get('hugetlb'), undefined)
  })

  test('version 2: all at one mount', () => {
    const mounts = parseMounts(UNIFIED, (point) => (point === '/sys/fs/cgroup' ? ALL : []))
    assert.equal(mounts.version, 2)
    assert.deepEqual([...mounts.controllers.keys()], ALL)
    assert.deepEqual(missingControllers(mounts), [])
    assert.deepEqual(layoutOf(mounts).directories('/icebox/x'), ['/sys/fs/cgroup/icebox/x'])
  })

  test('what is missing is named', () => {
    assert.deepEqual(missingControllers(parseMounts(UNIFIED, () => ['cpu', 'memory'])), ['cpuset', 'pids'])
    assert.deepEqual(missingControllers(parseMounts(SEPARATE.slice(0, 2).join('\n'), () => [])), ['cpuset', 'pids'])
    assert.equal(missingControllers(parseMounts('', () => [])).length, 5)
  })
})

describe('how limits are written', () => {
  test('what all together may use: hard limits, without ending them as one', () => {
    const most = { memoryBytes: 1 << 30, pids: 1000 }
    const separate = layoutOf(parseMounts(SEPARATE.join('\n'), () => [])).ceiling('/icebox', most)
    const unified = layoutOf(parseMounts(UNIFIED, () => ALL)).ceiling('/icebox', most)
    const written = (settings: typeof separate) => settings.map(({ file, value }) => `${file} ${value}`)
    assert.deepEqual(written(separate), [
      '/sys/fs/cgroup/memory/icebox/memory.use_hierarchy 1',
      `/sys/fs/cgroup/memory/icebox/memory.limit_in_bytes ${1 << 30}`,
      '/sys/fs/cgroup/pids/icebox/pids.max 1000',
    ])
    assert.deepEqual(written(unified), [
      `/sys/fs/cgroup/icebox/memory.max ${1 << 30}`,
      '/sys/fs/cgroup/icebox/pids.max 1000',
    ])
  })

  test('version 1', () => {
    const layout = layoutOf(parseMounts(SEPARATE.join('\n'), () => []))
    const written = Object.fromEntries(
      layout.limits('/icebox/x', LIMITS, '0').map(({ file, value }) => [file.replace('/sys/fs/cgroup/', ''), value]),
    )
    assert.deepEqual(written, {
      'cpuset/icebox/x/cpuset.mems': '0',
      'cpuset/icebox/x/cpuset.cpus': '0-1',
      'cpu,cpuacct/icebox/x/cpu.cfs_period_us': '100000',
      'cpu,cpuacct/icebox/x/cpu.cfs_quota_us': '150000',
      'memory/icebox/x/memory.limit_in_bytes': String(1 << 28),
      'memory/icebox/x/memory.swappiness': '0',
      'pids/icebox/x/pids.max': '100',
    })
    assert.equal(layout.cpuUsage('/x').seconds('1500000000\n'), 1.5)
  })

  test('version 2', () => {
    const layout = layoutOf(parseMounts(UNIFIED, () => ALL))
    const written = Object.fromEntries(
      layout
        .limits('/icebox/x', LIMITS, '0')
        .map(({ file, value }) => [file.replace('/sys/fs/cgroup/icebox/x/', ''), value]),
    )
    assert.deepEqual(written, {
      'cpuset.cpus': '0-1',
      'cpu.max': '150000 100000',
      'memory.max': String(1 << 28),
      'memory.swap.max': '0',
      'memory.oom.group': '1',
      'pids.max': '100',
    })
    assert.deepEqual(
      layout.delegation('/icebox', { cores: '0-1', memoryNodes: '0' }).map(({ file, value }) => `${file} ${value}`),
      ['cpu', 'cpuset', 'memory', 'pids'].map((name) => `/sys/fs/cgroup/icebox/cgroup.subtree_control +${name}`),
    )
    assert.equal(layout.cpuUsage('/x').seconds('usage_usec 2500000\nuser_usec 1\n'), 2.5)
  })

  test('only what is named', () => {
    for (const layout of [
      layoutOf(parseMounts(UNIFIED, () => ALL)),
      layoutOf(parseMounts(SEPARATE.join('\n'), () => [])),
    ]) {
      assert.deepEqual(layout.limits('/x', {}, '0'), [])
      assert.ok(
        layout.limits('/x', { pids: 7 }, '0').every(({ file, value }) => file.endsWith('/pids.max') && value === '7'),
      )
    }
  })
})
