import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** What the kernel says of the memory of the control groups that a process is in, whichever version of them a machine has. */

/** Where a group is in its hierarchy. */
interface Place {
  /** Where the hierarchy is mounted. */
  top: string
  path: string
  isUnified: boolean
}

const read = (file: string): string => {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

/** `groups`: as in `/proc/<pid>/cgroup`. */
function placesOf(groups: string, mount: string): Place[] {
  return groups.split('\n').flatMap((line): Place[] => {
    const [hierarchy, controllers = '', ...rest] = line.split(':')
    if (rest.length === 0) return []
    const path = join('/', rest.join(':'))
    if (hierarchy === '0') return [{ top: mount, path, isUnified: true }]
    return controllers.split(',').includes('memory') ? [{ top: join(mount, 'memory'), path, isUnified: false }] : []
  })
}

/** The least limit of the groups and of those above them, bytes; Infinity: none. Node knows the limit of its own group alone. */
export function memoryLimit(groups = read('/proc/self/cgroup'), mount = '/sys/fs/cgroup'): number {
  let least = Number.POSITIVE_INFINITY
  for (const { top, path, isUnified } of placesOf(groups, mount))
    for (let group = path; ; group = dirname(group)) {
      // `max` where there is none.
      const file = join(top, group, isUnified ? 'memory.max' : 'memory.limit_in_bytes')
      const limit = Number.parseInt(read(file), 10)
      if (limit > 0) least = Math.min(least, limit)
      if (group === '/') break
    }
  return least
}

/**
 * How many processes of the groups the kernel has killed for want of memory, whichever limit it was that was reached: not those in groups
 * below them, where the sandboxes are.
 */
export function kernelKills(groups = read('/proc/self/cgroup'), mount = '/sys/fs/cgroup'): number {
  const counts = placesOf(groups, mount).map(({ top, path, isUnified }) => {
    const text = read(join(top, path, isUnified ? 'memory.events.local' : 'memory.oom_control'))
    const line = text.split('\n').find((each) => each.startsWith('oom_kill '))
    return Number(line?.split(' ')[1] ?? 0)
  })
  return counts.reduce((sum, count) => sum + count, 0)
}
