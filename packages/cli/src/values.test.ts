import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UsageError } from './command.ts'
import { address, bytes, decimal, integer, keyValues, mebibytes, timeMs, timeSeconds } from './values.ts'

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
  for (const text of ['', '0', '-1', 's', '5x', '1h 30m', '5mm', '1e3', 'Infinity', ' 5'])
    refused(() => timeMs('--timeout', text))
  assert.equal(timeSeconds('--timeout', '1500ms'), 2)
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
  assert.equal(mebibytes('--memory', '1GB'), 954)
})

test('numbers', () => {
  assert.equal(integer('--count', '100', 1, 100), 100)
  for (const text of ['0', '101', '1.5', 'x', '', '-1', '1e1']) refused(() => integer('--count', text, 1, 100))
  assert.equal(decimal('--cpu', '0.5'), 0.5)
  for (const text of ['0', '', 'x', '-1', '1e3']) refused(() => decimal('--cpu', text))
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
