import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isError } from '@icebox/model'
import { Transfers } from './transfers.ts'

const refused = (limit: string) => (error: unknown) =>
  isError(error, 'TooManyRequests') && error.details.limit === limit && error.details.retryAfterSeconds === 1

test('a project has so many under way, all together so many, and everybody one', () => {
  const transfers = new Transfers({ transfers: 2, transfersInAll: 3, transfersAtOnce: 1 })
  const leave = transfers.enter('a')
  transfers.enter('a')
  assert.throws(() => transfers.enter('a'), refused('transfers'))
  const other = transfers.enter('b')
  assert.throws(() => transfers.enter('b'), refused('transfersInAll'))
  transfers.enter('c')
  other()
  other()
  assert.throws(() => transfers.enter('c'), refused('transfersInAll'))
  leave()
  transfers.enter('c')
  transfers.enter('b')
})
