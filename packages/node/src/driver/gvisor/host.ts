import { constants } from 'node:fs'
import { mkdir, open, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { IceboxError } from '@icebox/model'
import { CgroupTree } from '../../cgroup/cgroup.ts'
import type { DriverFacts } from '../driver.ts'
import { Agents } from './agent.ts'
import { readBootId } from './process.ts'
import { FLAGS } from './runsc.ts'
import { cpuFeatures, runscIdentity } from './version.ts'

const IDENTIFY_MS = 60_000
/** A socket's address holds 107 bytes, and runsc puts its own under `runsc/<20>/runsc-<20>.sock`. */
const RUN_DIRECTORY_BYTES = 107 - '/runsc/'.length - 20 - '/runsc-'.length - 20 - '.sock'.length

export interface GvisorConfig {
  /** The runsc program. */
  runsc: string
  /** The guest agent: one static program. */
  guest: string
  /**
   * Durable; agents/, bundles/ and tmp/ in it are used. Machines are saved to directories on the same file system.
   */
  dataDirectory: string
  /** What dies with the machines; at most 48 bytes, because sockets are made in it. */
  runDirectory: string
  /** The EROFS file of an image. */
  imagePath: (digest: string) => string
}

/** What holds containers: one data directory on this host, with one runsc. */
export interface Host {
  runsc: string
  cgroups: CgroupTree
  agents: Agents
  /** `bundles/` of the data directory: what must be on disk. */
  bundles: string
  /** `runsc/` of the run directory: runsc's state, a directory for each container. */
  roots: string
  /** `machines/` of the run directory: a directory for each execution. */
  machines: string
  /** `slots/` of the run directory: a directory for each container made ahead. */
  slots: string
  imagePath: (digest: string) => string
  /** Whether the data directory's file system takes O_DIRECT. */
  direct: boolean
  facts: DriverFacts
  bootId: string
}

/** Throws InvalidArgument. */
export function checkRunDirectory(path: string): void {
  if (Buffer.byteLength(path) > RUN_DIRECTORY_BYTES)
    throw new IceboxError(
      'InvalidArgument',
      `the run directory ${path} is longer than ${RUN_DIRECTORY_BYTES} bytes: sockets in it could not be named`,
    )
}

/** Whether files there can be opened past the page cache, which is faster for what is written or read once. */
async function takesDirect(directory: string): Promise<boolean> {
  // Always the same name: what a killed server leaves is taken away by the next.
  const file = join(directory, 'direct')
  try {
    await (await open(file, constants.O_CREAT | constants.O_RDWR | constants.O_DIRECT, 0o600)).close()
    return true
  } catch {
    return false
  } finally {
    await rm(file, { force: true })
  }
}

export async function prepareHost(config: GvisorConfig): Promise<Host> {
  const { runsc, guest, dataDirectory, runDirectory, imagePath } = config
  const directories = {
    bundles: join(dataDirectory, 'bundles'),
    roots: join(runDirectory, 'runsc'),
    machines: join(runDirectory, 'machines'),
    slots: join(runDirectory, 'slots'),
  }
  const tmp = join(dataDirectory, 'tmp')
  for (const directory of [...Object.values(directories), tmp]) await mkdir(directory, { recursive: true, mode: 0o700 })
  const [cgroups, identity, features, bootId, direct] = await Promise.all([
    CgroupTree.open(join('/icebox', basename(runDirectory))),
    runscIdentity(runsc, AbortSignal.timeout(IDENTIFY_MS)),
    cpuFeatures(),
    readBootId(),
    takesDirect(tmp),
  ])
  return {
    ...directories,
    runsc,
    cgroups,
    agents: new Agents(join(dataDirectory, 'agents'), guest),
    imagePath,
    direct,
    facts: { name: 'gvisor', ...identity, flags: FLAGS, cpuFeatures: features },
    bootId,
  }
}
