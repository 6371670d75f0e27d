import { readFile } from 'node:fs/promises'

/** Where the kernel's cgroup hierarchies are mounted. */
export interface CgroupMounts {
  /** 2: one hierarchy for all. 1: one for each controller, with or without a version 2 beside it that controls little (hybrid). */
  version: 1 | 2
  /** The directory of each controller's hierarchy by the controller's name; co-mounted ones share a directory. */
  controllers: ReadonlyMap<string, string>
  /** Where version 2 is mounted, if it is. */
  unified?: string
}

/** `/proc/self/mountinfo`: fields before ` - ` end with options, after it come type, source and the file system's options. */
export function parseMounts(mountinfo: string, unifiedControllers: (mountPoint: string) => string[]): CgroupMounts {
  const separate = new Map<string, string>()
  let unified: string | undefined
  for (const line of mountinfo.split('\n')) {
    const [left = '', right = ''] = line.split(' - ')
    const [type, , options = ''] = right.split(' ')
    const mountPoint = left.split(' ')[4]
    if (!mountPoint) continue
    if (type === 'cgroup2') unified ??= mountPoint
    if (type !== 'cgroup') continue
    for (const option of options.split(',')) {
      if (option.startsWith('name=')) separate.set(option.slice('name='.length), mountPoint)
      else if (option !== 'rw' && option !== 'ro' && !option.includes('=')) separate.set(option, mountPoint)
    }
  }
  if (separate.has('memory') || separate.has('cpu') || unified === undefined)
    return { version: 1, controllers: separate, ...(unified !== undefined && { unified }) }
  const mountPoint = unified
  return {
    version: 2,
    controllers: new Map(unifiedControllers(mountPoint).map((name) => [name, mountPoint])),
    unified,
  }
}

/** The hierarchies as this process sees them. */
export async function cgroupMounts(): Promise<CgroupMounts> {
  const mountinfo = await readFile('/proc/self/mountinfo', 'utf8')
  const names = new Map<string, string[]>()
  for (const line of mountinfo.split('\n')) {
    const [left = '', right = ''] = line.split(' - ')
    const mountPoint = left.split(' ')[4]
    if (!right.startsWith('cgroup2 ') || !mountPoint) continue
    const listed = await readFile(`${mountPoint}/cgroup.controllers`, 'utf8').catch(() => '')
    names.set(mountPoint, listed.trim().split(' ').filter(Boolean))
  }
  return parseMounts(mountinfo, (mountPoint) => names.get(mountPoint) ?? [])
}
