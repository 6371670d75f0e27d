import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { guestBuild, gvisorDriver, runscBuild } from '@icebox/node'
import type { Diagnosis, DriverFinding } from './diagnosis.ts'

/** Asks the gVisor driver itself, without anything of it running: probing makes no file. */
async function gvisor(dataDirectory: string, signal: AbortSignal): Promise<DriverFinding> {
  const driver = gvisorDriver({
    runsc: (await runscBuild()).path,
    guest: (await guestBuild()).path,
    dataDirectory,
    runDirectory: join(tmpdir(), 'icebox-doctor'),
    imagePath: (digest) => join(dataDirectory, 'images', digest),
  })
  const { usable, reason, version, digest } = await driver.probe(signal)
  return {
    name: driver.name,
    usable,
    reason,
    ...(version && { version }),
    ...(digest && { digest: `sha256:${digest}` }),
  }
}

const qemu: DriverFinding = {
  name: 'qemu',
  usable: false,
  reason: 'the driver for virtual machines is not part of this version',
}

/** The drivers and which of them runs sandboxes here: the first that can, of those in the order of preference. */
export async function checkDrivers(dataDirectory: string, signal: AbortSignal): Promise<Diagnosis['driver']> {
  const candidates = [qemu, await gvisor(dataDirectory, signal)]
  const chosen = candidates.find((candidate) => candidate.usable)
  const reason = chosen?.reason ?? candidates.map((candidate) => `${candidate.name}: ${candidate.reason}`).join('; ')
  return { chosen: chosen?.name ?? null, reason, candidates }
}
