import assert from 'node:assert/strict'
import { once } from 'node:events'
import { PassThrough } from 'node:stream'
import { describe, test } from 'node:test'
import type { ExecEvent, ExecSession } from '@icebox/model'
import fc from 'fast-check'
import { attachBody, openSession } from './exec-session.ts'
import { encodeFrame, KIND } from './frame.ts'
import { execRecord } from './hostile-guest.ts'
import { Mux } from './mux.ts'
import { PayloadWriter } from './payload.ts'
import { WINDOW } from './request.ts'
import { EXEC_EVENT, OP } from './wire.ts'

const STREAMS = ['stdout', 'stderr'] as const
const EPOCH = 7
const RECORD = execRecord(['x'], 42)

/** The other end of a link: what a guest may say, in any order and at any pace. */
class Peer {
  readonly #out = new PassThrough({ highWaterMark: 2 ** 30 })
  readonly mux = new Mux(this.#out, new PassThrough({ highWaterMark: 2 ** 30 }), EPOCH, () => {})
  #channels = 0

  constructor() {
    this.#out.on('data', (bytes: Buffer) => this.mux.receive(bytes))
    this.#say(KIND.attached, 0, new PayloadWriter().u8(1).text('test').done())
  }

  #say(kind: number, channel: number, payload: Uint8Array): void {
    this.#out.write(encodeFrame({ kind, flags: 0, epoch: EPOCH, channel, payload }))
  }

  async session(): Promise<{ session: ExecSession; channel: number }> {
    this.#channels += 1
    const opened = openSession(this.mux, OP.attach, attachBody('1', {}), AbortSignal.timeout(10_000))
    this.#say(KIND.reply, this.#channels, RECORD)
    return { session: await opened, channel: this.#channels }
  }

  data(channel: number, stream: number, offset: number, data: Uint8Array): void {
    this.#say(KIND.data, channel, new PayloadWriter().u8(stream).u64(offset).raw(data).done())
  }

  gap(channel: number, stream: number, from: number, to: number): void {
    this.#say(KIND.event, channel, new PayloadWriter().u8(EXEC_EVENT.gap).u8(stream).u64(from).u64(to).done())
  }

  exit(channel: number): void {
    this.#say(KIND.event, channel, new PayloadWriter().u8(EXEC_EVENT.exit).u32(0).u8(0).done())
  }

  /** Resolves when all that was said has been taken in. */
  async heard(): Promise<void> {
    while (this.#out.readableLength > 0 && !this.#out.destroyed) await once(this.#out, 'data')
  }
}

/** What became of each byte of each stream. */
type Fates = Record<'stdout' | 'stderr', (number | 'gap')[]>
function note(fates: Fates, event: ExecEvent): void {
  if (event.type === 'exit') return
  const fate = fates[event.stream]
  assert.equal(event.type === 'gap' ? event.from : event.offset, fate.length, 'nothing is left out or told twice')
  if (event.type === 'output') fate.push(...event.data)
  else for (let at = event.from; at < event.to; at += 1) fate.push('gap')
}

describe('events of an exec', () => {
  test('are the same bytes and gaps at the same offsets, however they were cut and whenever they are read', async () => {
    const step = fc.record({
      stream: fc.nat(1),
      kind: fc.constantFrom('data' as const, 'gap' as const, 'read' as const),
      length: fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 1500 })),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const peer = new Peer()
        const { session, channel } = await peer.session()
        const events = session.events[Symbol.asyncIterator]()
        const sent: Fates = { stdout: [], stderr: [] }
        const seen: Fates = { stdout: [], stderr: [] }
        const missing = () => sent.stdout.length + sent.stderr.length - seen.stdout.length - seen.stderr.length
        for (const { stream, kind, length } of steps) {
          const fate = sent[STREAMS[stream] ?? 'stdout']
          const from = fate.length
          if (kind === 'read' && missing() > 0) note(seen, (await events.next()).value ?? assert.fail('the end'))
          if (kind === 'gap') peer.gap(channel, stream, from, from + length)
          const bytes = Buffer.from(Array.from({ length }, (_, at) => (from + at) % 251))
          if (kind === 'data') peer.data(channel, stream, from, bytes)
          if (kind !== 'read') fate.push(...(kind === 'gap' ? Array(length).fill('gap') : bytes))
        }
        peer.exit(channel)
        for await (const event of session.events) note(seen, event)
        assert.deepEqual(seen, sent)
      }),
    )
  })

  test('of a reader that stands still cost it nothing, be they ever so many and small', async () => {
    const peer = new Peer()
    const { session, channel } = await peer.session()
    for (let at = 0; at < WINDOW; at += 1)
      for (const stream of STREAMS.keys()) peer.data(channel, stream, at, Buffer.of(at % 251))
    for (let at = WINDOW; at < 2 * WINDOW; at += 1)
      for (const stream of STREAMS.keys()) peer.gap(channel, stream, at, at + 1)
    peer.exit(channel)
    let output = 0
    const gaps: ExecEvent[] = []
    await peer.heard()
    for await (const event of session.events) {
      if (event.type === 'output') output += event.data.length
      if (event.type === 'gap') gaps.push(event)
    }
    assert.equal(output, 2 * WINDOW)
    assert.deepEqual(
      gaps,
      STREAMS.map((stream) => ({ type: 'gap', stream, from: WINDOW, to: 2 * WINDOW })),
    )
  })

  test('beyond all bounds end their own session and no other', async () => {
    const peer = new Peer()
    const flooded = await peer.session()
    const other = await peer.session()
    for (let at = 0; at < 100_000; at += 1) peer.gap(flooded.channel, 0, 2 * at, 2 * at + 1)
    peer.data(other.channel, 0, 0, Buffer.from('alive'))
    peer.exit(other.channel)
    let seen = ''
    for await (const event of other.session.events)
      if (event.type === 'output') seen += Buffer.from(event.data).toString()
    assert.equal(seen, 'alive')
    await assert.rejects(
      async () => {
        for await (const _ of flooded.session.events);
      },
      { code: 'GuestFailed', message: /more events/ },
    )
    assert.equal(peer.mux.ended, undefined)
  })
})
