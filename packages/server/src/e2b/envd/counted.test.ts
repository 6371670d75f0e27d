import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Budget } from '@icebox/model'
import { counted } from './counted.ts'

async function* streamOf(chunks: Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield* chunks
}

const message = (bytes: number): Buffer => {
  const framed = Buffer.alloc(5 + bytes)
  framed.writeUInt32BE(bytes, 1)
  return framed
}

test('of a stream only the message under way is held, however it is cut', async () => {
  for (const size of [1, 7, 64]) {
    const budget = new Budget('test', 100)
    const held = budget.reserve(0)
    const whole = Buffer.concat(Array.from({ length: 50 }, () => message(90)))
    const chunks = Array.from({ length: Math.ceil(whole.length / size) }, (_, n) =>
      whole.subarray(n * size, (n + 1) * size),
    )
    let bytes = 0
    for await (const chunk of counted(streamOf(chunks), 'application/connect+json', held)) bytes += chunk.length
    assert.deepEqual([bytes, held.bytes], [whole.length, 0])
  }
})

test('a message that does not fit is refused while it comes', async () => {
  for (const [type, chunks] of [
    ['application/json', [Buffer.alloc(60), Buffer.alloc(60)]],
    ['application/grpc', [message(1000).subarray(0, 500)]],
  ] as const) {
    const held = new Budget('test', 100).reserve(0)
    await assert.rejects(Array.fromAsync(counted(streamOf(chunks), type, held)), { code: 'TooManyRequests' })
  }
})
