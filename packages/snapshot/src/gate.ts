import { IceboxError } from '@icebox/model'
import type { DriverFacts, Manifest } from './manifest.ts'

const short = (digest: string): string => digest.slice(0, 'sha256:'.length + 12)

/**
 * Whether this machine can restore the snapshot. `here` is what the driver here says of itself. Throws
 * SnapshotIncompatible that names every difference. A `filesystem` snapshot boots, so only the driver's name matters.
 */
export function gate(manifest: Pick<Manifest, 'id' | 'kind' | 'driver'>, here: DriverFacts): void {
  const { kind, driver } = manifest
  const differences: string[] = []
  if (driver.name !== here.name)
    differences.push(`it needs the driver ${driver.name}, and this machine uses ${here.name}`)
  else if (kind === 'memory') {
    if (driver.version !== here.version)
      differences.push(`it needs ${driver.name} ${driver.version}, and ${here.version} is here`)
    else if (driver.digest !== here.digest)
      differences.push(
        `it needs the build ${short(driver.digest)} of ${driver.name} ${driver.version}, and the build ${short(here.digest)} is here`,
      )
    const lacking = driver.flags.filter((flag) => !here.flags.includes(flag))
    const foreign = here.flags.filter((flag) => !driver.flags.includes(flag))
    if (lacking.length > 0) differences.push(`it was taken with ${lacking.join(' ')}, which is not used here`)
    if (foreign.length > 0) differences.push(`it was taken without ${foreign.join(' ')}, which is used here`)
    const features = driver.cpuFeatures.filter((feature) => !here.cpuFeatures.includes(feature))
    if (features.length > 0) differences.push(`the CPU here lacks ${features.join(', ')}`)
  }
  if (differences.length > 0)
    throw new IceboxError(
      'SnapshotIncompatible',
      `snapshot ${manifest.id} cannot be restored here: ${differences.join('; ')}`,
    )
}
