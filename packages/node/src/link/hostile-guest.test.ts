import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import { IceboxError } from '@icebox/model'
import fc from 'fast-check'
import { z } from 'zod'
import { LINK_BYTES, LINKS, OUTGOING_BYTES } from './budget.ts'
import { encodeFrame, KIND, MAX_PAYLOAD, MORE } from './frame.ts'
import type { MuxedGuestLink } from './guest-link.ts'
import { FLOODS, Forged, record } from './hostile-guest.ts'
import { PayloadWriter } from './payload.ts'

const MIB = 1024 * 1024
const Report = z.object({ ended: z.string().optional(), most: z.number(), kept: z.number(), after: z.number() })
const say = (kind: number, channel: number, payload: Uint8Array, flags = 0) =>
  encodeFrame({ kind, flags, epoch: 7, channel, payload })

/** One request of each kind that waits for an answer. */
const requestsOf = (link: MuxedGuestLink, signal: AbortSignal): Promise<unknown>[] => [
  link.stat('/', {}, signal),
  link.list('/', {}, signal),
  link.listExecs(signal),
  link.metrics(signal),
  link.watch('/', {}, signal),
  link.dial(1, signal),
  link.exec({ argv: ['x'] }, signal),
  link.readFile('/', {}, signal),
]

describe('a guest that floods its link', { timeout: 240_000 }, () => {
  for (const name of Object.keys(FLOODS))
    test(`with ${name} does not take the memory of the process`, async () => {
      const program = new URL('./hostile-guest.ts', import.meta.url).pathname
      const { stdout } = await promisify(execFile)(process.execPath, ['--max-old-space-size=96', program, name], {
        timeout: 120_000,
      })
      const { most, kept, after } = Report.parse(JSON.parse(stdout))
      assert.ok(kept <= LINK_BYTES, `${kept} bytes kept`)
      assert.ok(most < 400 * MIB, `${most} bytes more`)
      assert.equal(after, 0, 'what was kept is given back')
    })
})

describe('what waits for a guest that does not listen', () => {
  test('has a bound, beyond which requests are refused, and goes when the callers do', async () => {
    const { link, mux } = new Forged()
    const callers = new AbortController()
    const asked = Array.from({ length: 700 }, () =>
      link.exec({ argv: ['true'], env: { A: 'x'.repeat(900_000) } }, callers.signal).then(
        () => 'begun',
        (error) => IceboxError.from(error).code,
      ),
    )
    assert.ok(mux.kept <= OUTGOING_BYTES, `${mux.kept}`)
    callers.abort(new IceboxError('DeadlineExceeded', 'the caller has gone'))
    const became = await Promise.all(asked)
    assert.deepEqual([...new Set(became)].sort(), ['DeadlineExceeded', 'TooManyRequests'])
    // What was half sent is closed, which the guest has to be told.
    assert.ok(mux.kept < 1024, `${mux.kept}`)
    link.detach()
    assert.equal(mux.kept, 0)
    assert.equal(LINKS.used, 0)
  })
})

describe('the memory of all links', () => {
  test('is not taken from others by a few that flood', async () => {
    const flooding: Forged[] = []
    for (let n = 0; n < 4; n += 1) {
      const forged = new Forged()
      flooding.push(forged)
      for (let channel = 1; channel <= 4; channel += 1) {
        forged.link.metrics(AbortSignal.timeout(20_000)).catch(() => {})
        const frame = say(KIND.reply, channel, Buffer.alloc(MAX_PAYLOAD), MORE)
        for (let at = 0; at < 480; at += 1) await forged.say(frame)
      }
    }
    assert.ok(flooding.every(({ mux }) => mux.ended === undefined && mux.kept > LINK_BYTES / 2))
    // As if more of them had taken the rest.
    const rest = LINKS.reserve(LINKS.limit - LINKS.used)
    const honest = Array.from({ length: 50 }, () => new Forged())
    for (const { link, mux } of honest) {
      const asked = link.remove('/x', {}, AbortSignal.timeout(10_000))
      mux.receive(say(KIND.reply, 1, new Uint8Array()))
      await asked
    }
    assert.ok(flooding.some(({ mux }) => mux.ended?.code === 'GuestFailed'))
    assert.ok(honest.every(({ mux }) => mux.ended === undefined))
    rest.release()
    for (const { link } of [...flooding, ...honest]) link.detach()
    assert.equal(LINKS.used, 0)
  })
})

describe('what a guest refuses with', () => {
  const refused = async (code: string, message: string) => {
    const { link, mux } = new Forged()
    const asked = link.stat('/x', {}, AbortSignal.timeout(10_000))
    mux.receive(say(KIND.error, 1, new PayloadWriter().text(code).u32(2).text(message).done()))
    return asked.then(
      () => assert.fail('it was answered'),
      (error) => IceboxError.from(error),
    )
  }

  test('is of what a guest can know, and speaks for nobody else', async () => {
    for (const code of ['Unauthorized', 'Conflict', 'Internal', 'Unavailable', 'SnapshotCorrupt', 'x'])
      assert.equal((await refused(code, 'no')).code, 'GuestFailed', code)
    assert.equal((await refused('NotFound', 'no')).code, 'NotFound')
  })

  test('is short, and no order to a terminal', async () => {
    const { message } = await refused('NotFound', `\u001b]0;x\u0007\u202e\n${'y'.repeat(20_000)}`)
    assert.doesNotMatch(message, /[\p{Cc}\p{Cf}]/u)
    assert.ok(message.length < 1100)
  })

  test('decides nothing where the node gives the order', async () => {
    for (const order of ['quiesce', 'release'] as const) {
      const { link, mux } = new Forged()
      const asked = link[order](AbortSignal.timeout(10_000))
      mux.receive(say(KIND.error, 1, new PayloadWriter().text('NotFound').u32(0).text('gone').done()))
      await assert.rejects(asked, { code: 'GuestFailed', message: /gone/ })
    }
  })
})

describe('a long listing', () => {
  test('is read as it comes, and others have their turn meanwhile', async () => {
    const forged = new Forged()
    const paths = Array.from({ length: 50_000 }, (_, n) => `/${(n * 7919) % 50_000}`)
    const listed = forged.link.list('/', {}, AbortSignal.timeout(60_000))
    await forged.say(say(KIND.reply, 1, Buffer.of(0)))
    let turns = 0
    let isOver = false
    const count = () => {
      turns += 1
      if (!isOver) setImmediate(count)
    }
    setImmediate(count)
    const all = Buffer.concat(paths.map(record))
    for (let at = 0; at < all.length; at += MAX_PAYLOAD) {
      await forged.say(say(KIND.data, 1, all.subarray(at, at + MAX_PAYLOAD)))
      await forged.read()
    }
    const before = turns
    await forged.say(say(KIND.end, 1, new Uint8Array()))
    const entries = await listed
    isOver = true
    assert.deepEqual(
      entries.map(({ path }) => path),
      paths.toSorted(),
    )
    assert.ok(turns > before + 3, 'putting them in order has pieces')
    assert.equal(forged.mux.ended, undefined)
    forged.link.detach()
  })

  test('whose records are cut anywhere is the same', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ maxLength: 20 }), { maxLength: 20 }),
        fc.array(fc.nat(), { maxLength: 30 }),
        async (names, cuts) => {
          const forged = new Forged()
          const listed = forged.link.list('/', {}, AbortSignal.timeout(10_000))
          await forged.say(say(KIND.reply, 1, Buffer.of(0)))
          const all = Buffer.concat(names.map((name) => record(`/${name}`)))
          const places = [0, ...cuts.map((at) => at % (all.length + 1)).sort((a, b) => a - b), all.length]
          for (const [n, to] of places.slice(1).entries())
            await forged.say(say(KIND.data, 1, all.subarray(places[n], to)))
          await forged.say(say(KIND.end, 1, new Uint8Array()))
          assert.equal((await listed).length, names.length)
          forged.link.detach()
        },
      ),
      { numRuns: 50 },
    )
  })
})

describe('frames that were changed on the way', () => {
  test('are understood or end the link, and leave nothing', async () => {
    const kinds = Object.values(KIND)
    const step = fc.record({
      kind: fc.constantFrom(...kinds),
      channel: fc.integer({ min: 0, max: 8 }),
      flags: fc.constantFrom(0, 0, 1),
      payload: fc.oneof(
        fc.uint8Array({ maxLength: 100 }),
        fc.tuple(fc.nat(), fc.nat(255)).map(([at, value]) => {
          const changed = Buffer.from(record('/a/b'))
          changed[at % changed.length] = value
          return changed
        }),
      ),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 50 }), async (steps) => {
        const forged = new Forged()
        const { link, mux } = forged
        const signal = AbortSignal.timeout(10_000)
        const became = Promise.all(
          requestsOf(link, signal).map((each) =>
            each.then(
              () => undefined,
              (error) => assert.notEqual(IceboxError.from(error).code, 'Internal', String(error)),
            ),
          ),
        )
        for (const { payload, ...rest } of steps) await forged.say(encodeFrame({ ...rest, epoch: 7, payload }))
        link.detach()
        await became
        assert.equal(mux.kept, 0)
      }),
      { numRuns: 300 },
    )
    assert.equal(LINKS.used, 0)
  })
})

describe('a guest that does not answer', () => {
  test('is waited for a bounded time, and what was asked of it leaves nothing', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const { link, mux } = new Forged()
    const { signal } = new AbortController()
    const asked = [link.quiesce(signal), link.release(signal), ...requestsOf(link, signal)].map((each) =>
      assert.rejects(each, { code: 'DeadlineExceeded' }),
    )
    t.mock.timers.tick(30_000)
    await Promise.all(asked)
    assert.equal(mux.kept, 0)
    link.detach()
  })
})
