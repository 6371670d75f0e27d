import assert from 'node:assert/strict'
import { networkInterfaces } from 'node:os'
import { test } from 'node:test'
import { isPublic } from './address.ts'
import { AddressPolicy } from './policy.ts'

const INSIDE = [
  ...['0.0.0.0', '0.1.2.3', '10.0.0.1', '10.255.255.255', '100.64.0.1', '100.127.255.255', '127.0.0.1', '127.255.0.9'],
  ...['169.254.169.254', '169.254.0.1', '172.16.0.1', '172.31.255.255', '192.168.1.1', '192.0.0.192', '198.18.0.1'],
  ...['224.0.0.1', '239.255.255.255', '240.0.0.1', '255.255.255.255', '168.63.129.16', '100.100.100.200'],
  ...['::', '::1', 'fe80::1', 'fe80::1%lo', 'fc00::1', 'fd00:ec2::254', 'fec0::1', 'ff02::1', '2001:db8::1', '100::1'],
  // The same in other words: mapped, compatible, translated, NAT64, 6to4, ISATAP, Teredo, another NAT64.
  ...['::ffff:127.0.0.1', '::ffff:7f00:1', '::ffff:a9fe:a9fe', '::127.0.0.1', '::ffff:0:10.0.0.1'],
  ...['64:ff9b::10.0.0.1', '64:ff9b::a9fe:a9fe', '2002:7f00:1::', '2002:a9fe:a9fe::1', '2002:c0a8:101::'],
  ...['2606:4700::5efe:10.0.0.1', '2606:4700::200:5efe:a00:1', '2001::1', '64:ff9b:1::a00:1', '::ffff:0:0:1'],
  ...['', 'example.org', '1.2.3', '999.1.1.1'],
]
const OUTSIDE = [
  ...[
    '1.1.1.1',
    '8.8.8.8',
    '100.63.255.255',
    '100.128.0.1',
    '172.15.0.1',
    '172.32.0.1',
    '192.167.1.1',
    '223.255.255.1',
  ],
  ...['2606:4700::1111', '2a00:1450::1', '::ffff:8.8.8.8', '64:ff9b::8.8.8.8', '2002:808:808::1'],
]

test('only addresses of the Internet are public, in whatever form they are written', () => {
  for (const address of INSIDE) assert.equal(isPublic(address), false, address)
  for (const address of OUTSIDE) assert.equal(isPublic(address), true, address)
})

test('addresses of this machine are not, whatever they are', () => {
  for (const own of Object.values(networkInterfaces()).flatMap((all) => all ?? []))
    assert.equal(isPublic(own.address), false, own.address)
})

test('what is listed may be connected to, and nothing near it', () => {
  const policy = new AddressPolicy([
    'Registry.corp',
    'ported.corp:5000',
    '10.1.0.0/16',
    'fd00::5',
    '[fd00::7]:5000',
    '10.9.9.9:80',
  ])
  const allows = (host: string, address: string, port = 443) => policy.allows(host, port, address)
  assert.ok(allows('registry.corp', '192.168.0.9'))
  assert.ok(allows('registry.corp', '192.168.0.9', 5000))
  assert.ok(!allows('other.corp', '192.168.0.9'))
  assert.ok(!allows('x.registry.corp', '192.168.0.9'))
  assert.ok(allows('ported.corp', '192.168.0.9', 5000))
  assert.ok(!allows('ported.corp', '192.168.0.9', 6379))
  assert.ok(allows('any.example', '10.1.2.3'))
  assert.ok(allows('any.example', '::ffff:10.1.2.3'), 'the same address in another form')
  assert.ok(allows('any.example', '64:ff9b::10.1.2.3'), 'the same address in another form')
  assert.ok(!allows('any.example', '10.2.0.1'))
  assert.ok(allows('any.example', 'fd00::5'))
  assert.ok(!allows('any.example', 'fd00::6'))
  assert.ok(allows('any.example', 'fd00::7', 5000))
  assert.ok(!allows('any.example', 'fd00::7', 22))
  assert.ok(allows('any.example', '10.9.9.9', 80))
  assert.ok(!allows('any.example', '10.9.9.9', 81))
  assert.ok(AddressPolicy.anything.allows('localhost', 22, '127.0.0.1'))
  for (const entry of ['10.0.0.0/33', '10.0.0.0/x', 'a/b', '/8', '', ':80', '[::1', 'a:b'])
    assert.throws(() => new AddressPolicy([entry]), TypeError, entry)
})

test('a name counts by its addresses', async () => {
  const refused = { code: 'ERR_ADDRESS_REFUSED' }
  for (const name of ['localhost', 'a.localhost', '127.0.0.1'])
    await assert.rejects(new AddressPolicy([]).resolve(name, 443), refused, name)
  const found = await new AddressPolicy(['127.0.0.0/8']).resolve('localhost', 443)
  assert.deepEqual(found, [{ address: '127.0.0.1', family: 4 }])
  await assert.rejects(new AddressPolicy(['127.0.0.1:5000']).resolve('localhost', 443), refused)
})
