import { IceboxError } from '@icebox/model'
import type { FastifyRequest } from 'fastify'

/**
 * Who shows its key as OpenSandbox's clients do is held to OpenSandbox's rules where they are stricter: what such a client sends
 * by mistake is refused here as it is there.
 */
const speaksOpenSandbox = ({ headers }: FastifyRequest): boolean => headers['open-sandbox-api-key'] !== undefined

const NAME = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/
const PREFIX = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
const RESERVED = 'opensandbox.io'

function problemOf(key: string, value: unknown): string | undefined {
  const [name = '', prefix, ...more] = key.split('/').reverse()
  if (more.length > 0 || !NAME.test(name)) return 'is no name of a Kubernetes label'
  if (prefix === RESERVED) return `the prefix ${RESERVED}/ is reserved`
  if (prefix !== undefined && (prefix.length > 253 || !PREFIX.test(prefix))) return 'has a prefix that is no DNS name'
  if (typeof value === 'string' && value !== '' && !NAME.test(value))
    return 'its value is no value of a Kubernetes label: at most 63 letters, digits, -, _ and ., with a letter or digit at both ends'
  return undefined
}

const refuse = (field: string, message: string): never => {
  throw new IceboxError('InvalidArgument', `${field}: ${message}`, { details: { field } })
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Metadata are labels of Kubernetes. Throws `InvalidArgument`. */
export function checkLabels(request: FastifyRequest, labels: unknown, at: string): void {
  if (!speaksOpenSandbox(request) || !isObject(labels)) return
  for (const [key, value] of Object.entries(labels)) {
    const problem = problemOf(key, value)
    if (problem !== undefined) refuse(`${at}.${key}`, problem)
  }
}

/** An image needs an entrypoint, metadata are labels. Throws `InvalidArgument`. */
export function checkCreate(request: FastifyRequest): void {
  const { body } = request
  if (!speaksOpenSandbox(request) || !isObject(body)) return
  if (isObject(body.image) && body.entrypoint === undefined) refuse('body.entrypoint', 'is required with image')
  checkLabels(request, body.metadata, 'body.metadata')
}
