import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, isIP } from 'node:net'
import { after, before, test } from 'node:test'
import { isError } from '@icebox/model'
import { request, Transient } from './http.ts'
import { AddressPolicy } from './policy.ts'

/** A name server: what it says of a name, changed by each test. */
const names = createSocket('udp4')
let addresses: Record<string, string[]> = {}
let asked = 0

const TYPES = { 1: 4, 28: 6 } as Record<number, number>

/** The answer to a question, which stands in it again: addresses of the type asked for, or that there is no such name. */
function answerTo(question: Buffer): Buffer {
  const labels: string[] = []
  let at = 12
  for (let length = question[at] ?? 0; length > 0; length = question[at] ?? 0) {
    labels.push(question.toString('latin1', at + 1, at + 1 + length))
    at += length + 1
  }
  const type = question.readUInt16BE(at + 1)
  const known = addresses[labels.join('.').toLowerCase()]
  const fitting = (known ?? []).filter((address) => isIP(address) === TYPES[type])
  const head = Buffer.from(question.subarray(0, 12))
  head.writeUInt16BE(known === undefined ? 0x8183 : 0x8180, 2)
  head.writeUInt16BE(fitting.length, 6)
  head.fill(0, 8)
  const records = fitting.map((address) => {
    const bytes =
      isIP(address) === 4
        ? Buffer.from(address.split('.').map(Number))
        : Buffer.from(
            address
              .split(':')
              .map((group) => group.padStart(4, '0'))
              .join(''),
            'hex',
          )
    const record = Buffer.alloc(12)
    record.writeUInt16BE(0xc00c, 0)
    record.writeUInt16BE(type, 2)
    record.writeUInt16BE(1, 4)
    record.writeUInt16BE(bytes.length, 10)
    return Buffer.concat([record, bytes])
  })
  return Buffer.concat([head, question.subarray(12, at + 5), ...records])
}

before(async () => {
  names.on('message', (question, { port, address }) => {
    asked++
    names.send(answerTo(question), port, address)
  })
  names.bind(0, '127.0.0.1')
  await once(names, 'listening')
})
after(() => names.close())

const policyOf = (...allowed: string[]) => new AddressPolicy(allowed, [`127.0.0.1:${names.address().port}`])
const found = async (policy: AddressPolicy, name: string) =>
  (await policy.resolve(name, 443)).map(({ address }) => address).toSorted()
const REFUSED = { code: 'ERR_ADDRESS_REFUSED' }
const METADATA_IPV6 = 'fd00:ec2:0:0:0:0:0:254'

test('a name of the Internet has its addresses, of both families', async () => {
  addresses = { 'registry.example': ['8.8.8.8', '2606:4700:0:0:0:0:0:1111'], 'four.example': ['1.1.1.1'] }
  assert.deepEqual(await found(policyOf(), 'registry.example'), ['2606:4700::1111', '8.8.8.8'])
  assert.deepEqual(await found(policyOf(), 'four.example'), ['1.1.1.1'])
  await assert.rejects(policyOf().resolve('none.example', 443), { code: 'ENOTFOUND' })
})

test('addresses inside are left out, and a name that has no others is refused', async () => {
  addresses = {
    'mixed.example': ['127.0.0.1', '8.8.8.8', METADATA_IPV6],
    'inside.example': ['10.0.0.1', '169.254.169.254', METADATA_IPV6, '0:0:0:0:0:ffff:7f00:1'],
  }
  assert.deepEqual(await found(policyOf(), 'mixed.example'), ['8.8.8.8'])
  await assert.rejects(policyOf().resolve('inside.example', 443), REFUSED)
  assert.deepEqual(await found(policyOf('10.0.0.0/8'), 'inside.example'), ['10.0.0.1'])
})

test('a connection goes where its own lookup leads, whatever the name meant before', async () => {
  const reached: string[] = []
  const service = createServer(({ url }, answer) => {
    reached.push(url ?? '')
    answer.end()
  }).listen(0, '127.0.0.1')
  await once(service, 'listening')
  try {
    const { port } = service.address() as AddressInfo
    const get = (name: string, policy: AddressPolicy) =>
      request(new URL(`http://${name}:${port}/`), {}, policy, AbortSignal.timeout(30_000)).then(
        ({ status, body }) => {
          body.destroy()
          return status
        },
        (thrown: unknown) => (thrown instanceof Transient ? thrown.error : thrown),
      )
    // It is the Internet's when it is looked at, and this machine's when it is connected to.
    addresses = { 'rebinding.example': ['8.8.8.8'] }
    const policy = policyOf()
    assert.deepEqual(await found(policy, 'rebinding.example'), ['8.8.8.8'])
    addresses = { 'rebinding.example': ['127.0.0.1'] }
    const before = asked
    assert.ok(isError(await get('rebinding.example', policy), 'RegistryUnreachable'))
    assert.ok(asked > before, 'it was looked up for the connection')
    assert.deepEqual(reached, [])
    assert.equal(await get('rebinding.example', policyOf(`127.0.0.1:${port}`)), 200)
    // What one policy keeps open is not another's.
    assert.ok(isError(await get('rebinding.example', policy), 'RegistryUnreachable'))
    assert.ok(isError(await get('localhost', policy), 'RegistryUnreachable'))
    assert.deepEqual(reached, ['/'])
  } finally {
    service.closeAllConnections()
    service.close()
  }
})
