import { defaultDataDirectory } from '@icebox/snapshot'
import { Diagnosis } from './diagnosis.ts'
import { checkDrivers } from './driver.ts'
import { checkHost } from './host.ts'
import { checkPrograms } from './programs.ts'
import { checkServer } from './server.ts'
import { checkStorage } from './storage.ts'

/**
 * Looks at everything Icebox needs, changes nothing, and says which driver would run sandboxes and why. Needs no server, and no
 * rights: what only root can find out is reported as missing root.
 */
export async function diagnose(
  signal: AbortSignal,
  dataDirectory: string = defaultDataDirectory(),
): Promise<Diagnosis> {
  const [host, programs, storage, server, driver] = await Promise.all([
    checkHost(),
    checkPrograms(signal),
    checkStorage(dataDirectory),
    checkServer(dataDirectory),
    checkDrivers(dataDirectory, signal),
  ])
  const checks = [...host, ...programs, ...storage, ...server]
  const complete = checks.every((check) => check.status !== 'missing' || !check.required)
  return Diagnosis.parse({ ok: complete && driver.chosen !== null, checks, driver })
}
