import { DEFAULT_SIZE, IceboxError, Size } from '@icebox/model'

const UNITS: Record<string, number> = {
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
}
const MIB = 2 ** 20

function quantity(name: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)(m|[kMGT]i?|)$/.exec(text)
  const [, number, unit] = match ?? []
  if (number === undefined || unit === undefined) {
    throw new IceboxError(
      'InvalidArgument',
      `resourceLimits.${name}: ${JSON.stringify(text)} is not a quantity such as 500m, 2, 512Mi or 2Gi`,
    )
  }
  return Number(number) * (unit === 'm' ? 0.001 : (UNITS[unit] ?? Number.NaN))
}

/** A size from Kubernetes quantities `cpu`, `memory` and `disk`; what is absent takes the default. Unknown names are refused. */
export function sizeFromLimits(limits: Record<string, string>): Size {
  for (const name of Object.keys(limits)) {
    if (!['cpu', 'memory', 'disk'].includes(name)) {
      throw new IceboxError('InvalidArgument', `resourceLimits.${name} is not known: cpu, memory and disk are`)
    }
  }
  const { cpu, memory, disk } = limits
  return checkSize({
    cpu: cpu === undefined ? DEFAULT_SIZE.cpu : quantity('cpu', cpu),
    memoryMiB: memory === undefined ? DEFAULT_SIZE.memoryMiB : Math.ceil(quantity('memory', memory) / MIB),
    diskMiB: disk === undefined ? DEFAULT_SIZE.diskMiB : Math.ceil(quantity('disk', disk) / MIB),
  })
}

/** Throws `InvalidArgument` naming what is out of range. */
export function checkSize(size: Size): Size {
  const parsed = Size.safeParse(size)
  if (parsed.success) return parsed.data
  const problem = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ')
  throw new IceboxError('InvalidArgument', `the size cannot be had: ${problem}`)
}
