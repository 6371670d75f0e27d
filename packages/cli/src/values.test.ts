import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UsageError } from './command.ts'
import { CPU, DISK_MIB, displayName, MEMORY_MIB, TIMEOUT_SECONDS, variables } from './limits.ts'
import {
  address,
  bytes,
  decimal,
  domain,
  hostNameOf,
  hostOrNetwork,
  integer,
  keyValues,
  mebibytes,
  origin,
  timeMs,
  timeSeconds,
} from './values.ts'

const refused = (work: () => unknown) => assert.throws(work, UsageError)

test('times', () => {
  const cases: [string, number][] = [
    ['30', 30_000],
    ['30s', 30_000],
    ['500ms', 500],
    ['1.5m', 90_000],
    ['1h30m', 5_400_000],
    ['2d', 172_800_000],
  ]
  for (const [text, expected] of cases) assert.equal(timeMs('--timeout', text), expected)
  for (const text of ['', '0', '-1', 's', '5x', '1h 30m', '5mm', '1e3', 'Infinity', ' 5', '99999999999h'])
    refused(() => timeMs('--timeout', text))
  assert.equal(timeSeconds('--timeout', '1500ms', { min: 1, max: 10 }), 2)
})

test('sizes', () => {
  const cases: [string, number][] = [
    ['10GiB', 10 * 2 ** 30],
    ['10Gi', 10 * 2 ** 30],
    ['512MiB', 2 ** 29],
    ['1.5GB', 1.5e9],
    ['100k', 100_000],
  ]
  for (const [text, expected] of cases) assert.equal(bytes('--size', text), expected)
  for (const text of ['', '512', '0GiB', '-1GiB', '1 PB', 'GiB', '1e3M']) refused(() => bytes('--size', text))
  assert.equal(mebibytes('--memory', '1GB', { min: 1, max: 1000 }), 954)
})

test('numbers', () => {
  assert.equal(integer('--count', '100', { min: 1, max: 100 }), 100)
  for (const text of ['0', '101', '1.5', 'x', '', '-1', '1e1'])
    refused(() => integer('--count', text, { min: 1, max: 100 }))
  assert.equal(decimal('--cpu', '0.5', CPU), 0.5)
  for (const text of ['0', '', 'x', '-1', '1e3', '65']) refused(() => decimal('--cpu', text, CPU))
})

test('keys and values', () => {
  assert.deepEqual(keyValues('--env', ['A=1', 'B=x=y', 'C=', 'A=2']), { A: '2', B: 'x=y', C: '' })
  for (const text of ['A', '=1', '']) refused(() => keyValues('--env', [text]))
})

test('addresses', () => {
  const cases: [string, string, number][] = [
    ['127.0.0.1:7070', '127.0.0.1', 7070],
    ['localhost:0', 'localhost', 0],
    [':8080', '127.0.0.1', 8080],
    ['8080', '127.0.0.1', 8080],
    ['[::1]:7070', '::1', 7070],
  ]
  for (const [text, host, port] of cases) assert.deepEqual(address('--listen', text), { host, port })
  for (const text of ['', 'host', 'host:', 'host:x', '1:2:3', ':65536']) refused(() => address('--listen', text))
})

test('what the API does not allow is refused in the words of the command line', () => {
  const cases: [work: () => unknown, message: string][] = [
    [
      () => timeSeconds('--timeout', '31d', TIMEOUT_SECONDS),
      '--timeout must be a time such as 30s, 5m or 2h, from 1s to 30d, not "31d"',
    ],
    [() => decimal('--cpu', '-1', CPU), '--cpu must be a number such as 2 or 0.5, from 0.1 to 64, not "-1"'],
    [
      () => mebibytes('--memory', '63MiB', MEMORY_MIB),
      '--memory must be a size with its unit, such as 512MiB or 2GiB, from 64.0 MiB to 256 GiB, not "63MiB"',
    ],
    [
      () => mebibytes('--disk', '1PiB', DISK_MIB),
      '--disk must be a size with its unit, such as 512MiB or 2GiB, from 64.0 MiB to 1.0 TiB, not "1PiB"',
    ],
    [
      () => displayName('--name', 'Box_1'),
      '--name must be 1–63 characters of a-z 0-9 -, with a letter or digit at both ends, not "Box_1"',
    ],
    [
      () => variables('--env', { A_1: '', '1A': 'x' }),
      '--env 1A: the part before = must be a name of letters, digits and _',
    ],
  ]
  for (const [work, message] of cases)
    assert.throws(work, (thrown) => {
      assert.ok(thrown instanceof UsageError)
      assert.equal(thrown.message, message)
      return true
    })
  assert.equal(timeSeconds('--timeout', '30d', TIMEOUT_SECONDS), 2_592_000)
  assert.equal(mebibytes('--disk', '1TiB', DISK_MIB), 1_048_576)
  assert.equal(displayName('--name', 'box-1'), 'box-1')
})

test('names and origins', () => {
  assert.equal(domain('--domain', 'ICE.example'), 'ice.example')
  assert.equal(domain('--domain', '*.ice.example'), 'ice.example')
  for (const text of ['', '.', 'ice.example:80', '127.0.0.1', 'a..b', '-a.b', 'https://ice.example', 'x'.repeat(64)])
    refused(() => domain('--domain', text))
  assert.equal(hostNameOf('--allow-host', 'Ice'), 'ice')
  assert.equal(hostNameOf('--allow-host', '::1'), '::1')
  for (const text of ['', 'ice:80', '[::1]', 'a b']) refused(() => hostNameOf('--allow-host', text))
  for (const text of ['registry.corp', 'registry.corp:5000', '10.1.2.3', '[::1]:5000', '::1', '10.0.0.0/8', 'fd00::/8'])
    assert.equal(hostOrNetwork('--registry-allow', text), text)
  for (const text of ['', 'a:b', ':80', 'a:70000', '10.0.0.0/33', '10.0.0.0/8/8', 'corp/8', 'a b', '[::1'])
    refused(() => hostOrNetwork('--registry-allow', text))
  for (const text of ['https://app.example', 'http://localhost:3000', '*'])
    assert.equal(origin('--cors-origin', text), text)
  for (const text of ['', 'app.example', 'https://app.example/path', 'null', 'file:///x', '*.example'])
    refused(() => origin('--cors-origin', text))
})
