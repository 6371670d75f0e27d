import { constants } from 'node:fs'
import { access, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { arch, availableParallelism, freemem, platform, release, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { cgroupMounts, missingControllers } from '@icebox/node'
import { createNetworkNamespace, unmount } from '@icebox/snapshot'
import { size } from '../output.ts'
import type { Check } from './diagnosis.ts'

/** gVisor's own minimum. */
const KERNEL_MINIMUM = [4, 14] as const
const MEMORY_COMFORT_BYTES = 1024 ** 3

const root: Check = {
  id: 'root',
  group: 'host',
  required: true,
  purpose: 'makes namespaces, mounts and cgroups',
  ...(process.geteuid?.() === 0
    ? { status: 'ok', found: 'running as root' }
    : {
        status: 'missing',
        found: `running as user ${process.geteuid?.()}`,
        remedy: 'Run icebox as root (sudo icebox …).',
      }),
}

function kernel(): Check {
  const [major = 0, minor = 0] = release()
    .split('.')
    .map((part) => Number.parseInt(part, 10))
  const [leastMajor, leastMinor] = KERNEL_MINIMUM
  const usable =
    platform() === 'linux' && arch() === 'x64' && (major > leastMajor || (major === leastMajor && minor >= leastMinor))
  return {
    id: 'kernel',
    group: 'host',
    required: true,
    purpose: 'Linux on x86_64',
    version: release(),
    found: `${platform()} ${arch()}, ${availableParallelism()} cores`,
    ...(usable
      ? { status: 'ok' }
      : { status: 'missing', remedy: `Use Linux ${KERNEL_MINIMUM.join('.')} or newer on x86_64.` }),
  }
}

async function memory(): Promise<Check> {
  const available = Number(/^MemAvailable:\s+(\d+) kB/m.exec(await readFile('/proc/meminfo', 'utf8'))?.[1]) * 1024
  const free = Number.isFinite(available) ? available : freemem()
  return {
    id: 'memory',
    group: 'host',
    required: false,
    purpose: 'every running sandbox lives in it',
    found: `${size(free)} available of ${size(totalmem())}`,
    ...(free >= MEMORY_COMFORT_BYTES
      ? { status: 'ok' }
      : {
          status: 'warning',
          remedy: 'Stop other programs or use a machine with more memory: only small sandboxes fit.',
        }),
  }
}

async function kvm(): Promise<Check> {
  const found = async () => {
    try {
      await using device = await open('/dev/kvm', 'r+')
      return device.fd > 0 ? 'opens, which does not prove that it works; nothing uses it yet' : ''
    } catch (failure) {
      return failure instanceof Error && 'code' in failure && failure.code !== 'ENOENT'
        ? `there, but cannot be opened (${failure.code})`
        : 'not there'
    }
  }
  return {
    id: 'kvm',
    group: 'host',
    required: false,
    status: 'info',
    purpose: 'hardware virtual machines, for a driver that is not part of this version',
    found: await found(),
  }
}

async function userfaultfd(): Promise<Check> {
  const sysctl = '/proc/sys/vm/unprivileged_userfaultfd'
  const there = await access(sysctl, constants.R_OK).then(
    () => true,
    () => false,
  )
  return {
    id: 'userfaultfd',
    group: 'host',
    required: false,
    status: 'info',
    purpose: 'memory fetched on demand, for a driver that is not part of this version',
    found: there ? 'the kernel has it' : 'the kernel does not have it',
  }
}

/** Makes a network namespace as the driver does, and takes it away again. */
async function networkNamespaces(): Promise<Check> {
  const check = {
    id: 'network-namespaces',
    group: 'host',
    required: true,
    purpose: 'each sandbox has its own network',
  } as const
  const directory = await mkdtemp(join(tmpdir(), 'icebox-doctor-'))
  const path = join(directory, 'net')
  let made = false
  try {
    await writeFile(path, '')
    createNetworkNamespace(path)
    made = true
    return { ...check, status: 'ok', found: 'made one and removed it' }
  } catch (failure) {
    return {
      ...check,
      status: 'missing',
      found: failure instanceof Error ? failure.message : String(failure),
      remedy: 'Run as root, on the host or in a container that may make network namespaces and mounts (CAP_SYS_ADMIN).',
    }
  } finally {
    if (made) unmount(path)
    await rm(directory, { recursive: true, force: true })
  }
}

/** The controllers that keep a sandbox to its size. */
async function cgroups(): Promise<Check[]> {
  const mounts = await cgroupMounts()
  const missing = missingControllers(mounts)
  const layout: Check = {
    id: 'cgroups',
    group: 'host',
    required: false,
    status: 'info',
    purpose: 'how the kernel groups processes',
    found:
      mounts.version === 2 ? 'version 2' : mounts.unified ? 'hybrid: version 1 with version 2 beside it' : 'version 1',
  }
  return [
    layout,
    ...(['cpu', 'cpuset', 'memory', 'pids'] as const).map((name): Check => {
      const at = mounts.controllers.get(name)
      const there = at !== undefined && !missing.includes(name)
      return {
        id: `cgroup.${name}`,
        group: 'host',
        required: true,
        purpose: `limits a sandbox’s ${name === 'cpuset' ? 'cores' : name === 'pids' ? 'processes' : name}`,
        ...(there
          ? { status: 'ok', found: at }
          : {
              status: 'missing',
              found: 'no such controller',
              remedy: `Mount the cgroup file system with the ${name} controller, or start the kernel with cgroup_enable=${name}.`,
            }),
      }
    }),
  ]
}

export async function checkHost(): Promise<Check[]> {
  return [
    kernel(),
    root,
    await memory(),
    ...(await cgroups()),
    await networkNamespaces(),
    await userfaultfd(),
    await kvm(),
  ]
}
