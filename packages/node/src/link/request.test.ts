import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import { describe, test } from 'node:test'
import { encodeFrame, FrameParser, KIND, MAX_PAYLOAD } from './frame.ts'
import { Mux } from './mux.ts'
import { PayloadReader, PayloadWriter } from './payload.ts'
import { MAX_WIDE, Request, WIDE_WINDOW, WINDOW } from './request.ts'
import { OP } from './wire.ts'

const EPOCH = 7
const PIECE = Buffer.alloc(MAX_PAYLOAD)

/** The other end of a link, which sends on every channel as much as it may. */
class Peer {
  readonly #heard = new PassThrough()
  readonly #parser = new FrameParser()
  readonly #credit = new Map<number, number>()
  readonly mux = new Mux(new PassThrough(), this.#heard, EPOCH, () => {})

  constructor() {
    this.#heard.on('data', (bytes: Buffer) => {
      for (const { kind, channel, payload } of this.#parser.feed(bytes)) this.#frame(kind, channel, payload)
    })
    this.#say(KIND.attached, 0, new PayloadWriter().u8(1).text('test').done())
  }

  #frame(kind: number, channel: number, payload: Uint8Array): void {
    if (kind !== KIND.open && kind !== KIND.credit) return
    const reader = new PayloadReader(payload)
    reader.u8()
    this.#credit.set(channel, (this.#credit.get(channel) ?? 0) + reader.u32())
  }

  #say(kind: number, channel: number, payload: Uint8Array): void {
    this.mux.receive(encodeFrame({ kind, flags: 0, epoch: EPOCH, channel, payload }))
  }

  /** Bytes that it has sent ahead when it has sent all that it may. */
  fill(channel: number): number {
    let sent = 0
    for (; (this.#credit.get(channel) ?? 0) >= PIECE.length; sent += PIECE.length) this.data(channel)
    return sent
  }

  data(channel: number): void {
    this.#credit.set(channel, (this.#credit.get(channel) ?? 0) - PIECE.length)
    this.#say(KIND.data, channel, PIECE)
  }
}

const openStream = (peer: Peer) => {
  const request = new Request(peer.mux, OP.dial, new Uint8Array(), AbortSignal.timeout(10_000))
  return { request, data: request.data() }
}

/** Reads all that comes, as long as that is. */
async function readAll(peer: Peer, channel: number, data: AsyncGenerator<Buffer>, bytes: number): Promise<void> {
  for (let read = 0; read < bytes; ) {
    for (let waiting = peer.fill(channel); waiting > 0; ) {
      const { value } = await data.next()
      waiting -= value?.length ?? assert.fail('the end')
      read += value.length
    }
    // What was given out last counts as read when more is asked for.
    const next = data.next()
    peer.data(channel)
    read += (await next).value?.length ?? assert.fail('the end')
  }
}

describe('bytes from the guest', () => {
  test('that nobody reads are no more than the window, and who sends more ends the link', () => {
    const peer = new Peer()
    openStream(peer)
    assert.equal(peer.fill(1), WINDOW)
    const reason = () => peer.mux.ended?.message
    assert.equal(reason(), undefined)
    peer.data(1)
    assert.match(reason() ?? '', /more data than was granted/)
  })

  test('may be more ahead of who reads them as they come, in so many streams at once', async () => {
    const streams = Array.from({ length: MAX_WIDE + 1 }, () => {
      const peer = new Peer()
      return { peer, ...openStream(peer) }
    })
    const ahead: number[] = []
    for (const { peer, data } of streams) {
      await readAll(peer, 1, data, 2 * WINDOW)
      ahead.push(peer.fill(1))
    }
    const last = ahead.pop() ?? 0
    const near = (bytes: number, window: number) => bytes > window / 2 && bytes <= window
    assert.ok(
      ahead.every((bytes) => near(bytes, WIDE_WINDOW)),
      `${ahead}`,
    )
    assert.ok(near(last, WINDOW), `${last}`)
    // Whose place is free again may be taken by another.
    for (const { request } of streams) request.finish()
    const peer = new Peer()
    const { request, data } = openStream(peer)
    await readAll(peer, 1, data, 2 * WINDOW)
    assert.ok(near(peer.fill(1), WIDE_WINDOW))
    request.finish()
    for (const each of [peer, ...streams.map((stream) => stream.peer)]) assert.equal(each.mux.ended, undefined)
  })
})
