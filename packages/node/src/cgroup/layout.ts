import { join } from 'node:path'
import type { CgroupMounts } from './mounts.ts'

export interface Limits {
  /** Cores; fractions allowed. */
  cpu: number
  memoryBytes: number
  /** Processes and threads of the host. */
  pids: number
  /** Cores it may run on, as the kernel lists them (`0-3,5`). */
  cores: string
}

export type Ceiling = Pick<Limits, 'memoryBytes' | 'pids'>

/** A file to write. Optional: the kernel may have been built or booted without it. */
export interface Setting {
  file: string
  value: string
  optional?: boolean
}

/** How one version of cgroups spells what we need. `path` is absolute within the hierarchies. Pure: nothing here touches a file. */
export interface Layout {
  /** Every directory that together is the group. */
  directories(path: string): string[]
  /** Written to a directory that will hold groups, once it and what is above it exist. `cores` and `memoryNodes` are those of the host. */
  delegation(path: string, host: { cores: string; memoryNodes: string }): Setting[]
  limits(path: string, limits: Partial<Limits>, memoryNodes: string): Setting[]
  /** What all groups in the directory may use together. */
  ceiling(path: string, most: Ceiling): Setting[]
  /** Where the cores and memory nodes of the whole host are read. */
  readonly host: { cores: string; memoryNodes: string }
  cpuUsage(path: string): { file: string; seconds(text: string): number }
  /** Files that hold the bytes charged to the group, and how many of them are cached files, which the kernel takes back at need. */
  memoryUsage(path: string): { file: string; statistics: string }
  /** The file whose `oom_kill` line counts the processes that were killed for want of memory. */
  oom(path: string): string
  /** The file that lists the processes of the group. */
  processes(path: string): string
}

const PERIOD_US = 100_000
const REQUIRED = ['cpu', 'cpuset', 'memory', 'pids']
/** Those in which runsc would make the group itself, and then own it, if it were not there. */
const ALL = [
  ...REQUIRED,
  'blkio',
  'cpuacct',
  'devices',
  'freezer',
  'hugetlb',
  'net_cls',
  'net_prio',
  'perf_event',
  'rdma',
  'systemd',
]

const quota = (cpu: number) => Math.max(1000, Math.round(cpu * PERIOD_US))

function separate(controllers: ReadonlyMap<string, string>): Layout {
  const at = (controller: string, path: string, file: string) => join(controllers.get(controller) ?? '/', path, file)
  return {
    directories: (path) => {
      const mounted = ALL.flatMap((name) => controllers.get(name) ?? [])
      return [...new Set(mounted)].map((mount) => join(mount, path))
    },
    // A cpuset takes no process until it was given cores and memory nodes.
    delegation: (path, host) => [
      { file: at('cpuset', path, 'cpuset.cpus'), value: host.cores },
      { file: at('cpuset', path, 'cpuset.mems'), value: host.memoryNodes },
    ],
    limits: (path, { cpu, memoryBytes, pids, cores }, memoryNodes) => [
      ...(cores === undefined
        ? []
        : [
            { file: at('cpuset', path, 'cpuset.mems'), value: memoryNodes },
            { file: at('cpuset', path, 'cpuset.cpus'), value: cores },
          ]),
      ...(cpu === undefined
        ? []
        : [
            { file: at('cpu', path, 'cpu.cfs_period_us'), value: String(PERIOD_US) },
            { file: at('cpu', path, 'cpu.cfs_quota_us'), value: String(quota(cpu)) },
          ]),
      ...(memoryBytes === undefined
        ? []
        : [
            { file: at('memory', path, 'memory.limit_in_bytes'), value: String(memoryBytes) },
            { file: at('memory', path, 'memory.swappiness'), value: '0', optional: true },
          ]),
      ...(pids === undefined ? [] : [{ file: at('pids', path, 'pids.max'), value: String(pids) }]),
    ],
    // Optional: groups that use more already, as those of an earlier server may, cannot be given less.
    ceiling: (path, { memoryBytes, pids }) => [
      // Where a kernel does not count what is below by itself.
      { file: at('memory', path, 'memory.use_hierarchy'), value: '1', optional: true },
      { file: at('memory', path, 'memory.limit_in_bytes'), value: String(memoryBytes), optional: true },
      { file: at('pids', path, 'pids.max'), value: String(pids), optional: true },
    ],
    host: { cores: at('cpuset', '/', 'cpuset.cpus'), memoryNodes: at('cpuset', '/', 'cpuset.mems') },
    cpuUsage: (path) => ({ file: at('cpuacct', path, 'cpuacct.usage'), seconds: (text) => Number(text) / 1e9 }),
    memoryUsage: (path) => ({
      file: at('memory', path, 'memory.usage_in_bytes'),
      statistics: at('memory', path, 'memory.stat'),
    }),
    oom: (path) => at('memory', path, 'memory.oom_control'),
    processes: (path) => at('memory', path, 'cgroup.procs'),
  }
}

function unified(controllers: ReadonlyMap<string, string>): Layout {
  const mount = [...controllers.values()][0] ?? '/sys/fs/cgroup'
  const at = (path: string, file: string) => join(mount, path, file)
  return {
    directories: (path) => [at(path, '')],
    delegation: (path) =>
      REQUIRED.filter((name) => controllers.has(name)).map((name) => ({
        file: at(path, 'cgroup.subtree_control'),
        value: `+${name}`,
      })),
    limits: (path, { cpu, memoryBytes, pids, cores }) => [
      ...(cores === undefined ? [] : [{ file: at(path, 'cpuset.cpus'), value: cores }]),
      ...(cpu === undefined ? [] : [{ file: at(path, 'cpu.max'), value: `${quota(cpu)} ${PERIOD_US}` }]),
      ...(memoryBytes === undefined
        ? []
        : [
            { file: at(path, 'memory.max'), value: String(memoryBytes) },
            { file: at(path, 'memory.swap.max'), value: '0', optional: true },
            // The sentry cannot go on without its helpers, nor they without it.
            { file: at(path, 'memory.oom.group'), value: '1', optional: true },
          ]),
      ...(pids === undefined ? [] : [{ file: at(path, 'pids.max'), value: String(pids) }]),
    ],
    // Not as one: of too much memory one sandbox dies, not all.
    ceiling: (path, { memoryBytes, pids }) => [
      { file: at(path, 'memory.max'), value: String(memoryBytes), optional: true },
      { file: at(path, 'pids.max'), value: String(pids), optional: true },
    ],
    host: { cores: at('/', 'cpuset.cpus.effective'), memoryNodes: at('/', 'cpuset.mems.effective') },
    cpuUsage: (path) => ({
      file: at(path, 'cpu.stat'),
      seconds: (text) => Number(/^usage_usec (\d+)/m.exec(text)?.[1]) / 1e6,
    }),
    memoryUsage: (path) => ({ file: at(path, 'memory.current'), statistics: at(path, 'memory.stat') }),
    oom: (path) => at(path, 'memory.events'),
    processes: (path) => at(path, 'cgroup.procs'),
  }
}

/** Controllers that the host lacks and without which no sandbox can be kept to its size. */
export const missingControllers = ({ version, controllers }: CgroupMounts): string[] =>
  (version === 1 ? [...REQUIRED, 'cpuacct'] : REQUIRED).filter((name) => !controllers.has(name))

export const layoutOf = (mounts: CgroupMounts): Layout =>
  mounts.version === 1 ? separate(mounts.controllers) : unified(mounts.controllers)
