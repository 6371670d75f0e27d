import assert from 'node:assert/strict'
import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { test } from 'node:test'
import { Strangers } from './strangers.ts'

function from(address: string, forwarded?: string): IncomingMessage {
  const socket = new Socket()
  Object.defineProperty(socket, 'remoteAddress', { value: address })
  const request = new IncomingMessage(socket)
  if (forwarded !== undefined) request.headers['x-forwarded-for'] = forwarded
  return request
}

const SLOW = { burst: 3, perSecond: 0.001 }
const MANY = { burst: 1_000_000, perSecond: 1 }

test('an address that was refused too often waits, and others do not', () => {
  const strangers = new Strangers(SLOW, MANY)
  for (const [first, same, other] of [
    [from('192.0.2.1'), from('::ffff:192.0.2.1'), from('192.0.2.2')],
    [from('2001:db8::1'), from('2001:db8:0:0:ffff::2'), from('2001:db8:0:1::1')],
    [from('127.0.0.1', '192.0.2.3'), from('127.0.0.1', 'anything, 192.0.2.3'), from('127.0.0.1', '192.0.2.4')],
  ] as const) {
    for (let refusal = 0; refusal < 3; refusal++) {
      strangers.check(first)
      strangers.refused(first)
    }
    assert.throws(() => strangers.check(same), { code: 'TooManyRequests' })
    strangers.check(other)
  }
})

test('all of them together wait, too, and few addresses are remembered', () => {
  const strangers = new Strangers(SLOW, { burst: 10_000, perSecond: 0.001 })
  const first = from('192.0.2.1')
  for (let refusal = 0; refusal < 3; refusal++) strangers.refused(first)
  assert.throws(() => strangers.check(first))
  for (let other = 0; other < 5_000; other++) strangers.refused(from(`10.0.${other >> 8}.${other & 255}`))
  strangers.check(first)
  for (let other = 0; other < 5_000; other++) strangers.refused(from(`10.1.${other >> 8}.${other & 255}`))
  assert.throws(() => strangers.check(from('192.0.2.9')), { code: 'TooManyRequests' })
})
