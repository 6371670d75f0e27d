import assert from 'node:assert/strict'
import { once } from 'node:events'
import { request } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { describe, it, type TestContext } from 'node:test'
import { isError } from '@icebox/model'
import fastify, { type FastifyReply } from 'fastify'
import { sendBytes } from './bytes.ts'
import { ClientGone } from './client.ts'
import { within } from './deadline.ts'
import { sendLines } from './lines.ts'
import { sendProgress } from './progress.ts'
import { Streams } from './stream.ts'
import { until } from './testing.ts'

/** Serves one route and gives its address. */
async function route(t: TestContext, handler: (reply: FastifyReply) => Promise<unknown>): Promise<string> {
  const app = fastify()
  app.decorateRequest('failure', undefined)
  app.get('/', (_, reply) => handler(reply))
  t.after(() => app.close())
  return app.listen({ port: 0, host: '127.0.0.1' })
}

const opened = async (streams: Streams, reply: FastifyReply) =>
  (await streams.open(reply, 60_000, async () => undefined)).signal

async function* endless(produced: () => void): AsyncGenerator<string> {
  for (;;) {
    produced()
    yield `${'x'.repeat(65_535)}\n`
  }
}

describe('a stream', () => {
  it('holds its source back while the client does not read, and ends it when the client goes away', async (t) => {
    const streams = new Streams()
    let produced = 0
    let ended: unknown
    const url = await route(t, async (reply) => {
      await sendLines(
        reply,
        endless(() => (produced += 1)),
        await opened(streams, reply),
        (error) => ({ error }),
      )
      ended = true
    })
    const client = request(url)
    client.end()
    const [response] = await once(client, 'response')
    // Nothing is read: the source stands still once the buffers on the way are full.
    let before = -1
    while (produced !== before) {
      before = produced
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
    assert.ok(before * 65_536 < 64 * 1_048_576, `${before} chunks`)
    response.destroy()
    await until(() => ended === true)
  })

  it('ends at once when the server closes, also when its source gives nothing, and says so', async (t) => {
    const streams = new Streams()
    async function* silent(): AsyncGenerator<string> {
      yield '{"type":"ready"}\n'
      await new Promise(() => undefined)
    }
    const url = await route(t, async (reply) =>
      sendLines(reply, silent(), await opened(streams, reply), (error) => ({ type: 'error', error })),
    )
    const response = await fetch(url)
    const reader = response.body?.getReader()
    const first = await reader?.read()
    assert.equal(Buffer.from(first?.value ?? []).toString(), '{"type":"ready"}\n')
    streams.close()
    const second = await reader?.read()
    assert.equal(JSON.parse(Buffer.from(second?.value ?? []).toString()).error.code, 'Unavailable')
    assert.equal((await reader?.read())?.done, true)
  })

  it('tells of a source that fails in its last line', async (t) => {
    const streams = new Streams()
    async function* failing(): AsyncGenerator<string> {
      yield '{"n":1}\n'
      throw new Error('no more')
    }
    const url = await route(t, async (reply) =>
      sendLines(reply, failing(), await opened(streams, reply), (error) => ({ type: 'error', error })),
    )
    const lines = (await (await fetch(url)).text()).trimEnd().split('\n')
    assert.equal(lines.length, 2)
    assert.match(lines[1] ?? '', /^\{"type":"error","error":\{"code":"Internal","message":"no more"/)
  })

  it('that starts too late is an error before it begins', async (t) => {
    const streams = new Streams()
    const url = await route(t, async (reply) => {
      await assert.rejects(
        streams.open(reply, 10, () => new Promise(() => undefined)),
        (error) => isError(error, 'DeadlineExceeded'),
      )
      return 'late'
    })
    assert.equal(await (await fetch(url)).text(), 'late')
  })
})

describe('an answer of bytes', () => {
  const chunks = async function* (...sizes: number[]): AsyncGenerator<Uint8Array> {
    for (const [index, size] of sizes.entries()) yield Buffer.alloc(size, index + 1)
  }
  const get = async (t: TestContext, sizes: number[], expected?: number) => {
    const streams = new Streams()
    const url = await route(t, async (reply) =>
      sendBytes(
        reply,
        { headers: {}, ...(expected === undefined ? {} : { expected }) },
        chunks(...sizes),
        await opened(streams, reply),
      ),
    )
    const client = request(url)
    client.end()
    const [response] = await once(client, 'response')
    return { length: response.headers['content-length'], body: buffer(response) }
  }

  it('has its real length when it is short, whatever was expected', async (t) => {
    for (const expected of [0, 3, 4096, undefined]) {
      const { length, body } = await get(t, [3], expected)
      assert.equal(length, '3')
      assert.deepEqual([...(await body)], [1, 1, 1])
    }
    assert.equal((await get(t, [], 4096)).length, '0')
  })

  it('has the expected length when it is long, and is cut there when its file has grown', async (t) => {
    const whole = await get(t, [65_536, 1000, 65_536], 132_072)
    assert.equal(whole.length, '132072')
    const body = await whole.body
    assert.equal(body.length, 132_072)
    assert.deepEqual([body[65_535], body[65_536], body[66_535], body[66_536]], [1, 2, 2, 3])
    const grown = await get(t, [65_536, 65_536], 100_000)
    assert.equal((await grown.body).length, 100_000)
  })

  it('is broken off when there is less than promised', async (t) => {
    await assert.rejects((await get(t, [65_536, 10], 100_000)).body, { code: 'ECONNRESET' })
  })

  it('has no length when nothing true is known', async (t) => {
    const { length, body } = await get(t, [65_536, 10], 0)
    assert.equal(length, undefined)
    assert.equal((await body).length, 65_546)
  })
})

describe('progress', () => {
  const lines = async (url: string) => {
    const response = await fetch(url)
    return (await response.text())
      .trimEnd()
      .split('\n')
      .map((text) => JSON.parse(text))
  }

  it('is told step by step, then the result', async (t) => {
    const streams = new Streams()
    const url = await route(t, (reply) =>
      sendProgress(reply, streams, async (progress) => {
        progress({ phase: 'fetch', done: 1, total: 2 })
        await new Promise(setImmediate)
        progress({ phase: 'unpack' })
        return { id: 'x' }
      }),
    )
    const all = await lines(url)
    assert.deepEqual(all.at(-1), { result: { id: 'x' } })
    assert.deepEqual(all.at(-2), { phase: 'unpack' })
  })

  it('ends with the error', async (t) => {
    const streams = new Streams()
    const url = await route(t, (reply) =>
      sendProgress(reply, streams, async (progress) => {
        progress({ phase: 'fetch' })
        throw new Error('broken')
      }),
    )
    const all = await lines(url)
    assert.equal(all.at(-1).error.message, 'broken')
  })

  it('does not begin when the work fails before its first step', async (t) => {
    const streams = new Streams()
    const url = await route(t, (reply) =>
      sendProgress(reply, streams, async () => {
        throw new Error('not even begun')
      }),
    )
    const response = await fetch(url)
    assert.equal(response.status, 500)
    assert.match(await response.text(), /not even begun/)
  })
})

describe('a deadline', () => {
  it('ends the wait and fires the signal, also for work that ignores it', async () => {
    let signal: AbortSignal | undefined
    await assert.rejects(
      within(5, (given) => {
        signal = given
        return new Promise(() => undefined)
      }),
      (error) => isError(error, 'DeadlineExceeded') && error.message.includes('0.005 s'),
    )
    assert.ok(isError(signal?.reason, 'DeadlineExceeded'))
  })

  it('fires no signal once the work is done', async () => {
    let signal: AbortSignal | undefined
    assert.equal(
      await within(5, async (given) => {
        signal = given
        return 7
      }),
      7,
    )
    await new Promise((resolve) => setTimeout(resolve, 20))
    assert.equal(signal?.aborted, false)
  })

  it('ends when the client goes away, for work that is for the client only', async (t) => {
    const reached = Promise.withResolvers<void>()
    const outcome = Promise.withResolvers<unknown>()
    const url = await route(t, async (reply) => {
      const work = (signal: AbortSignal): Promise<never> => {
        reached.resolve()
        return once(signal, 'abort').then(() => Promise.reject(signal.reason))
      }
      await within(60_000, work, reply).catch(outcome.resolve)
    })
    const client = request(url)
    client.on('error', () => undefined).end()
    await reached.promise
    client.destroy()
    assert.ok((await outcome.promise) instanceof ClientGone)
  })
})
