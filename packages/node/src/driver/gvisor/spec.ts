import { createHash } from 'node:crypto'
import type { MachineSpec } from '@icebox/model'
import { SANDBOX_SCORE } from '../../oom.ts'
import { GUEST_TASKS } from './limits.ts'

/** Raised when the spec below changes, so that slots and snapshots of the older one are told apart. */
const SPEC_VERSION = 1

const MIB = 1_048_576

/** Where the guest agent is seen in a sandbox. */
export const AGENT_MOUNT = '/.icebox'
export const AGENT_NAME = 'guest'

// All that the kernel has. User processes get fewer: the agent drops the rest before it starts one.
const CAPABILITIES = [
  'AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER',
  'FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE',
  'NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE',
  'SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM',
].flatMap((line) => line.split(' ').map((name) => `CAP_${name}`))

interface Mount {
  destination: string
  type: string
  source: string
  options?: string[]
}

/** The part of an OCI runtime spec that we write. */
export interface OciSpec {
  ociVersion: string
  hostname: string
  root: { path: string; readonly: boolean }
  process: {
    user: { uid: number; gid: number }
    cwd: string
    args: string[]
    env: string[]
    capabilities: Record<'bounding' | 'effective' | 'permitted' | 'inheritable', string[]>
    rlimits: { type: string; soft: number; hard: number }[]
    oomScoreAdj: number
    noNewPrivileges: boolean
  }
  mounts: Mount[]
  annotations: Record<string, string>
  linux: { namespaces: { type: string; path?: string }[]; cgroupsPath?: string }
}

/**
 * What a sandbox is, for runsc: a function of the image, the size and the driver's version and of nothing else, so that one
 * container is as good as another for a restore. Who it is comes later by HELLO, where it is by `place`.
 */
export function ociSpec({ imageDigest, size }: MachineSpec, driverVersion: string): OciSpec {
  const halfMemory = `size=${Math.floor((size.memoryMiB * MIB) / 2)}`
  return {
    ociVersion: '1.2.1',
    hostname: 'icebox',
    root: { path: 'rootfs', readonly: false },
    process: {
      user: { uid: 0, gid: 0 },
      cwd: '/',
      args: [`${AGENT_MOUNT}/${AGENT_NAME}`],
      env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      capabilities: {
        bounding: CAPABILITIES,
        effective: CAPABILITIES,
        permitted: CAPABILITIES,
        inheritable: CAPABILITIES,
      },
      rlimits: [
        { type: 'RLIMIT_NOFILE', soft: 1_048_576, hard: 1_048_576 },
        { type: 'RLIMIT_NPROC', soft: GUEST_TASKS, hard: GUEST_TASKS },
      ],
      // Of the sentry and its gofer, on the host.
      oomScoreAdj: SANDBOX_SCORE,
      noNewPrivileges: false,
    },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['ro', 'nosuid', 'noexec', 'nodev'] },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
      { destination: '/dev/pts', type: 'devpts', source: 'devpts' },
      {
        destination: '/dev/shm',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'nodev', 'mode=1777', halfMemory],
      },
      { destination: '/tmp', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'nodev', 'mode=1777', halfMemory] },
    ],
    annotations: {
      'dev.icebox.spec': String(SPEC_VERSION),
      'dev.icebox.driver': driverVersion,
      'dev.icebox.image': imageDigest,
      'dev.icebox.cpu': String(size.cpu),
      'dev.icebox.memory': String(size.memoryMiB * MIB),
      'dev.gvisor.spec.rootfs.type': 'erofs',
      // On disk beside the bundle, ENOSPC at its limit, and part of what a checkpoint holds.
      'dev.gvisor.spec.rootfs.overlay': 'self',
      'dev.gvisor.spec.rootfs.options': `size=${size.diskMiB * MIB}`,
    },
    linux: { namespaces: [{ type: 'pid' }, { type: 'ipc' }, { type: 'uts' }, { type: 'mount' }] },
  }
}

/** Equal for machines that can take each other's slots. */
export const specKey = (spec: OciSpec): string => createHash('sha256').update(JSON.stringify(spec)).digest('hex')

export interface Place {
  /** The image's EROFS file. */
  image: string
  /** The directory that holds the agent, mounted read-only. runsc fails with `overlay: self` and no bind mount at all. */
  agent: string
  /** A file on which a network namespace is mounted. */
  network: string
  cgroup: string
}

/** The spec at a place of this host. */
export function placed(spec: OciSpec, place: Place): OciSpec {
  return {
    ...spec,
    mounts: [
      ...spec.mounts,
      { destination: AGENT_MOUNT, type: 'bind', source: place.agent, options: ['ro', 'rbind', 'nosuid', 'nodev'] },
    ],
    annotations: { ...spec.annotations, 'dev.gvisor.spec.rootfs.source': place.image },
    linux: {
      ...spec.linux,
      namespaces: [...spec.linux.namespaces, { type: 'network', path: place.network }],
      cgroupsPath: place.cgroup,
    },
  }
}
