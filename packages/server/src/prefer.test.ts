import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { waitOf } from './prefer.ts'

describe('Prefer', () => {
  it('gives the seconds of wait, wherever it stands and however it is written', () => {
    for (const [prefer, seconds] of [
      ['wait=10', 10],
      ['wait=0', 0],
      ['Wait = "7"', 7],
      ['respond-async, wait=5', 5],
      ['wait=5; x=1', 5],
      ['wait=3600', 3600],
    ] as const)
      assert.equal(waitOf(prefer), seconds, prefer)
  })
  it('takes more than an hour as an hour', () => assert.equal(waitOf('wait=999999'), 3600))
  it('ignores what is not understood', () => {
    for (const prefer of [undefined, '', 'wait', 'wait=', 'wait=-1', 'wait=1.5', 'wait=soon', 'await=5', 'nowait=5'])
      assert.equal(waitOf(prefer), undefined, String(prefer))
  })
})
