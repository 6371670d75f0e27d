import { IceboxError } from '@icebox/model'
import type { FastifyRequest } from 'fastify'

/** Throws `Forbidden` unless the request carries the installation's own key: what it does is about more than its project. */
export async function requireInstallation({ installation }: FastifyRequest): Promise<void> {
  if (installation) return
  throw new IceboxError('Forbidden', 'this needs the key of the installation, and not one of a project', {
    remedy: 'Use the key of the file `key` in the data directory of the server.',
  })
}
