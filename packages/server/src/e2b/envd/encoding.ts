import { RestError } from './errors.ts'

/** Codings with their weights, of a header such as Accept-Encoding. */
function weights(header: string): Map<string, number> {
  const found = new Map<string, number>()
  for (const part of header.toLowerCase().split(',')) {
    const [name = '', ...parameters] = part.split(';').map((text) => text.trim())
    const weight = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2)
    const value = weight === undefined ? 1 : Number(weight)
    if (name !== '') found.set(name, Number.isFinite(value) ? value : 1)
  }
  return found
}

/**
 * How a file is sent: compressed for clients that ask for that and nothing else, or that refuse it as it is. The usual header of
 * HTTP libraries, `gzip, deflate`, leaves the choice to us, and compressing would cost both sides more than it saves.
 * `plain`: only as it is will do. Throws a `RestError` with 406 when the client takes neither.
 */
export function chosenEncoding(header: string | undefined, plain: boolean): 'gzip' | 'identity' {
  const given = weights(header ?? '')
  const any = given.get('*')
  const gzip = given.get('gzip') ?? any ?? 0
  const identity = given.get('identity') ?? any ?? 1
  const isIdentityRefused = identity === 0 && (given.has('identity') || any === 0)
  if (isIdentityRefused && (plain || gzip === 0))
    throw new RestError(406, 'no acceptable encoding found, supported: [identity, gzip]')
  if (plain || gzip === 0) return 'identity'
  const others = [...given.keys()].filter((name) => !['gzip', 'identity', '*'].includes(name))
  const isAskedFor = given.has('gzip') && others.length === 0 && gzip >= (given.get('identity') ?? 0)
  return isIdentityRefused || isAskedFor ? 'gzip' : 'identity'
}

/** Whether a body has to be decompressed. Throws a `RestError` with 400 for codings that are not known. */
export function isGzipped(header: string | undefined): boolean {
  const coding = header?.split(';')[0]?.trim().toLowerCase() ?? ''
  if (coding === '' || coding === 'identity') return false
  if (coding === 'gzip') return true
  throw new RestError(400, `unsupported Content-Encoding: ${header}, supported: [gzip]`)
}
