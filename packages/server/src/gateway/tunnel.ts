import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Address } from './address.ts'
import { boundInformation, failure, tooLate } from './exchange.ts'
import { toClient } from './headers.ts'

/** What a request to upgrade came to. */
export type Offer =
  | { taken: true; answer: IncomingMessage; guest: Duplex; head: Buffer }
  | { taken: false; answer: IncomingMessage }

/** Waits for the guest's word on an upgrade, so many milliseconds at most. Throws an IceboxError when it does not come. */
export async function offer(outgoing: ClientRequest, milliseconds: number, signal: AbortSignal): Promise<Offer> {
  const { promise, resolve, reject } = Promise.withResolvers<Offer>()
  outgoing.once('upgrade', (answer, guest, head) => resolve({ taken: true, answer, guest, head }))
  outgoing.once('response', (answer) => resolve({ taken: false, answer }))
  outgoing.on('error', reject)
  boundInformation(outgoing)
  const late = setTimeout(
    () => outgoing.destroy(tooLate('The service inside did not answer', milliseconds)),
    milliseconds,
  )
  const stop = () => outgoing.destroy(signal.reason)
  signal.addEventListener('abort', stop, { once: true })
  outgoing.end()
  try {
    return await promise
  } catch (thrown) {
    throw failure(thrown)
  } finally {
    clearTimeout(late)
    signal.removeEventListener('abort', stop)
  }
}

/** Joins two byte streams until both halves have ended or one has failed. */
export function join(
  client: Duplex,
  clientHead: Buffer,
  { answer, guest, head }: Offer & { taken: true },
  address: Address,
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const lines = [
    `HTTP/1.1 101 ${answer.statusMessage ?? ''}`,
    'Connection: Upgrade',
    `Upgrade: ${answer.headers.upgrade}`,
  ]
  const headers = toClient(answer, address)
  for (let at = 0; at + 1 < headers.length; at += 2) lines.push(`${headers[at]}: ${headers[at + 1]}`)
  // The client may have gone while the guest was asked.
  if (client.destroyed) {
    guest.destroy()
    return Promise.resolve()
  }
  client.write(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
  if (head.length > 0) guest.unshift(head)
  if (clientHead.length > 0) client.unshift(clientHead)
  let open = 2
  for (const [one, other] of [
    [client, guest],
    [guest, client],
  ] as const) {
    one.on('error', () => undefined)
    one.once('close', () => {
      // An end was passed on; what closed without one has failed.
      if (!one.readableEnded) other.destroy()
      if (--open === 0) resolve()
    })
    one.pipe(other)
  }
  return promise
}
