import type { FastifyRequest } from 'fastify'
import type { App } from './context.ts'

/** Leaves the bodies of the scope's routes alone, whatever their Content-Type: their handlers stream them. */
export function rawBodies(scope: App): void {
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser('*', (_request, _payload, done) => done(null))
}

/** The body as it arrives. Not reading it holds the client back. Who stops early can still answer. */
export const readBody = (request: FastifyRequest): AsyncIterable<Buffer> =>
  request.raw.iterator({ destroyOnReturn: false })
