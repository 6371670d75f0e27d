import type { Duplex } from 'node:stream'
import { type GuestConnection, IceboxError } from '@icebox/model'
import { z } from 'zod'
import { ClientGone } from '../client.ts'
import type { App, Context } from '../context.ts'
import { DEADLINE } from '../deadline.ts'
import { integer } from '../parameters.ts'
import { FAILURES, Ref } from '../schemas.ts'

/** TCP ports inside a running sandbox. */
export async function portRoutes(app: App, context: Context): Promise<void> {
  app.get(
    '/v1/sandboxes/:id/ports/:port',
    {
      schema: {
        operationId: 'openPort',
        summary: 'Connect to a TCP port of a sandbox: after the answer 101 the connection carries its bytes',
        description: 'Send `Connection: Upgrade` and `Upgrade: tcp`. Either side may end its half on its own.',
        tags: ['Ports'],
        params: Ref.extend({ port: integer(1, 65_535) }),
        response: { 101: z.undefined().describe('The bytes follow'), ...FAILURES },
      },
    },
    async (request, reply) => {
      const { id, port } = request.params
      const upgrade = context.upgrades.get(request.raw)
      if (upgrade === undefined)
        throw new IceboxError('InvalidArgument', 'a port is reached by a connection that is upgraded', {
          remedy: 'Send the headers `Connection: Upgrade` and `Upgrade: tcp`, or use `icebox port`.',
        })
      const { started: connection, signal } = await context.streams.open(reply, DEADLINE.reach, async (opened) =>
        (await request.project.sandboxes.guest(id, opened)).dial(port, opened),
      )
      reply.hijack()
      const { socket, head } = upgrade
      const abort = () => {
        connection.destroy()
        socket.destroy()
      }
      // The client may have gone while the guest was dialled.
      if (signal.aborted) return abort()
      signal.addEventListener('abort', abort, { once: true })
      // Written past the response, which only the log reads from here on.
      reply.raw.statusCode = 101
      socket.unshift(head)
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nX-Request-ID: ${request.id}\r\n\r\n`,
      )
      try {
        await Promise.all([toGuest(socket, connection), toClient(connection, socket)])
      } catch (thrown) {
        if (!(signal.reason instanceof ClientGone)) request.failure = IceboxError.from(thrown)
        abort()
      }
    },
  )
}

async function toGuest(socket: Duplex, connection: GuestConnection): Promise<void> {
  for await (const data of socket.iterator({ destroyOnReturn: false })) await connection.write(data)
  await connection.end()
}

async function toClient(connection: GuestConnection, socket: Duplex): Promise<void> {
  for await (const data of connection.readable) {
    if (socket.write(data)) continue
    const { promise: ready, resolve, reject } = Promise.withResolvers<void>()
    socket.once('drain', resolve).once('close', reject)
    try {
      await ready
    } finally {
      socket.off('drain', resolve).off('close', reject)
    }
  }
  socket.end()
}
