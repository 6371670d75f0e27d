import { readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const lines = async (path: string) => (await readFile(path, 'utf8').catch(() => '')).split('\n').filter(Boolean)
const names = async (path: string) => await readdir(path).catch(() => [])

/**
 * Everything on this machine that sandboxes consist of, one line each: runsc processes, mounts, network namespaces, cgroups,
 * run directories, and what is in the scratch directory. What a test run leaves behind is the difference of two calls.
 */
export async function machineState(scratch: string): Promise<Set<string>> {
  const found = new Set<string>()
  for (const pid of (await names('/proc')).filter((name) => /^\d+$/.test(name))) {
    const cmdline = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0')
    const program = basename(cmdline[0] ?? '')
    if (/^(runsc|icebox)/.test(program) || cmdline.some((argument) => argument.includes('/run/icebox/')))
      found.add(`process ${pid}: ${cmdline.join(' ').trim().slice(0, 200)}`)
  }
  for (const line of await lines('/proc/self/mountinfo')) {
    const at = line.split(' ')[4] ?? ''
    if (/\/icebox|\/runsc|null-netns/.test(at) || at.startsWith('/run/netns/') || at.startsWith(scratch))
      found.add(`mount ${at}`)
  }
  for (const name of await names('/run/netns')) found.add(`network namespace ${name}`)
  // A server that ended leaves the empty directories of its next start.
  for (const name of await directories('/run/icebox'))
    if (await holdsFiles(join('/run/icebox', name))) found.add(`run directory /run/icebox/${name}`)
  for (const group of await cgroups()) found.add(`cgroup ${group}`)
  for (const name of await names(scratch)) found.add(`file ${join(scratch, name)}`)
  return found
}

/** The groups under those named icebox, by their path within the hierarchies: the same group in several is one. */
async function cgroups(): Promise<string[]> {
  const hierarchies = (await lines('/proc/self/mountinfo'))
    .filter((line) => / - cgroup2? /.test(line))
    .map((line) => line.split(' ')[4] ?? '')
  const found: string[] = []
  for (const hierarchy of hierarchies)
    for (const top of await directories(hierarchy))
      if (top.startsWith('icebox'))
        for (const group of await directories(join(hierarchy, top))) found.push(join('/', top, group))
  return found
}

async function holdsFiles(path: string): Promise<boolean> {
  const entries = await readdir(path, { withFileTypes: true, recursive: true }).catch(() => [])
  return entries.some((entry) => !entry.isDirectory())
}

async function directories(path: string): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => [])
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name)
}

/** What is there now and was not before, once it has had `settleMs` milliseconds to go away. */
export async function leftBehind(
  before: Set<string>,
  scratch: string,
  settleMs: number,
  signal: AbortSignal,
): Promise<string[]> {
  const until = performance.now() + settleMs
  for (;;) {
    const left = [...(await machineState(scratch))].filter((line) => !before.has(line))
    if (left.length === 0 || performance.now() > until) return left
    await sleep(250, undefined, { signal })
  }
}
