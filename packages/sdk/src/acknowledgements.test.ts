import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Acknowledgements } from './acknowledgements.ts'

for (const bytes of [1, 1_000_000])
  test(`what could not be told is told again, though no more of it comes: ${bytes} bytes`, {
    timeout: 10_000,
  }, async () => {
    const told = Promise.withResolvers<void>()
    let tries = 0
    const acknowledgements = new Acknowledgements(async () => {
      tries += 1
      if (tries <= 2) throw new Error('the connection broke')
      told.resolve()
    })
    acknowledgements.took(bytes)
    await told.promise
    acknowledgements.stop()
    assert.equal(tries, 3)
  })
