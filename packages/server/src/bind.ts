import { once } from 'node:events'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { IceboxError } from '@icebox/model'
import { isLoopback } from './access.ts'

/** The address a host stands for. `localhost` is the one of IPv4 alone. */
export const addressOf = (host: string): string => (host === 'localhost' ? '127.0.0.1' : host)

/** Whether others than this machine can connect. */
export const isBeyondLoopback = (host: string): boolean => !isLoopback(host)

/**
 * Throws what `openListener` would throw for this address, before anything else is begun. Another program may still take it in
 * between.
 */
export async function checkAddress({ host, port }: { host: string; port: number }): Promise<void> {
  const probe = createServer()
  await bind(probe, addressOf(host), port)
  await closed(probe)
}

/** Throws `Conflict` when the port is taken, `InvalidArgument` when the address cannot be listened on. */
export async function bind(server: Server, host: string, port: number): Promise<void> {
  const bound = once(server, 'listening')
  server.listen({ host, port })
  try {
    await bound
  } catch (thrown) {
    throw listenError(thrown, host, port)
  }
}

/** Takes no more connections, and waits for the end of those there are. */
export async function closed(server: Server): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  server.close(() => resolve())
  await promise
}

function listenError(thrown: unknown, host: string, port: number): unknown {
  const errno = thrown instanceof Error && 'code' in thrown ? thrown.code : undefined
  const remedy = 'Give another address with --listen HOST:PORT.'
  switch (errno) {
    case 'EADDRINUSE':
      return new IceboxError('Conflict', `port ${port} of ${host} is in use by another program`, {
        remedy: `Stop that program (\`ss -ltnp 'sport = :${port}'\` names it), or give another port with --listen HOST:PORT.`,
        details: { port },
        cause: thrown,
      })
    case 'EACCES':
    case 'EADDRNOTAVAIL':
    case 'EAFNOSUPPORT':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
    case 'ERR_SOCKET_BAD_PORT':
      return new IceboxError('InvalidArgument', `cannot listen on ${host} port ${port}: ${errno}`, {
        remedy,
        cause: thrown,
      })
    default:
      return thrown
  }
}

/** What to call it by; from this machine, when it listens on every address. */
export function urlOf(scheme: string, bound: AddressInfo | string | null, host: string, port: number): string {
  const name = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host
  const number = typeof bound === 'object' && bound !== null ? bound.port : port
  return `${scheme}://${name.includes(':') ? `[${name}]` : name}:${number}`
}
