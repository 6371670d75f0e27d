import { constants } from 'node:fs'
import { mkdir, open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { MachineSpec } from '@icebox/model'
import { mkfifo } from '@icebox/snapshot'
import { parseCores } from '../../cgroup/cgroup.ts'
import { createNetwork } from '../../network/namespace.ts'
import { together } from '../../together.ts'
import { bundleOf, Container, rootOf } from './container.ts'
import type { Host } from './host.ts'
import { guestCores, guestMemory, memoryLimit, PIDS } from './limits.ts'
import { identify } from './process.ts'
import { callRunsc } from './runsc.ts'
import { type OciSpec, placed } from './spec.ts'

const CREATE_MS = 60_000

export interface Plan {
  spec: MachineSpec
  oci: OciSpec
  agent: { digest: string; file?: string }
  /** A filesystem checkpoint whose files the container starts with. */
  files?: string
}

const random = (count: number) => Math.floor(Math.random() * count)

/**
 * Creates a container, ready for start or restore, in an empty run directory. What is there after a failure is taken away
 * by `destroyContainer`.
 */
export async function createContainer(
  host: Host,
  id: string,
  directory: string,
  plan: Plan,
  signal: AbortSignal,
): Promise<Container> {
  const { size } = plan.spec
  const bundle = bundleOf(host, id)
  const network = join(directory, 'network')
  const cores = parseCores(await host.cgroups.hostCores())
  const start = random(cores.length)
  const chosen = [...cores.slice(start), ...cores.slice(0, start)].slice(0, guestCores(size, cores.length))
  const place = {
    image: host.imagePath(plan.spec.imageDigest),
    agent: join(bundle, 'agent'),
    network,
    cgroup: host.cgroups.find(id).path,
  }
  for (const name of ['in', 'out']) mkfifo(join(directory, name), 0o600)
  const [cgroup] = await together([
    // runsc tells the guest the memory and the cores that its group has at this moment.
    host.cgroups.make(id, { cpu: size.cpu, memoryBytes: guestMemory(size), pids: PIDS, cores: chosen.join(',') }),
    createNetwork(network),
    mkdir(bundle).then(() =>
      together([
        mkdir(join(bundle, 'rootfs')),
        writeFile(join(bundle, 'config.json'), JSON.stringify(placed(plan.oci, place))),
        host.agents.install(place.agent, plan.agent),
      ]),
    ),
  ])
  const input = await open(join(directory, 'in'), constants.O_RDWR)
  try {
    const output = await open(join(directory, 'out'), constants.O_RDWR)
    try {
      const files = plan.files
        ? [`--fs-restore-image-path=${plan.files}`, ...(host.direct ? ['--fs-restore-direct'] : [])]
        : []
      await callRunsc(
        host.runsc,
        {
          arguments: ['create', `--bundle=${bundle}`, `--pid-file=${join(directory, 'pid')}`, ...files, id],
          root: rootOf(host, id),
          log: join(directory, 'log'),
          network,
          // The sandbox itself holds both ends, so that nothing is lost while nobody else has them open.
          stdio: [input.fd, output.fd],
          deadlineMs: CREATE_MS,
          abortable: true,
        },
        signal,
      )
    } finally {
      await output.close()
    }
  } finally {
    await input.close()
  }
  const [pid] = await Promise.all([
    readFile(join(directory, 'pid'), 'utf8'),
    cgroup.limit({ memoryBytes: memoryLimit(size), cores: await host.cgroups.hostCores() }),
  ])
  const process = await identify(Number(pid))
  if (!process) throw new Error(`the sandbox ${id} ended as soon as it was created`)
  return new Container(host, id, directory, process)
}
