import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { ExecRequest } from '@icebox/model'
import fc from 'fast-check'
import { attachBody, execBody } from './exec-session.ts'
import { encodeFrame, encodeMessage, type Frame, FrameParser, HEADER, KIND, MAX_PAYLOAD, PADDING } from './frame.ts'
import { helloBody } from './guest-link.ts'
import { PayloadReader, PayloadWriter } from './payload.ts'
import { HELLO } from './testing.ts'
import { readExecInfo, readFileInfo, readMetrics } from './wire.ts'

const frames = (parser: FrameParser, ...chunks: Uint8Array[]): Frame[] =>
  chunks.flatMap((chunk) => [...parser.feed(chunk)].map((frame) => ({ ...frame, payload: Buffer.from(frame.payload) })))

const anyFrame = fc
  .tuple(
    fc.integer({ min: 0, max: 255 }),
    fc.integer({ min: 0, max: 65_535 }),
    fc.integer({ min: 0, max: 0xffff_ffff }),
    fc.integer({ min: 0, max: 0xffff_ffff }),
    fc.uint8Array({ maxLength: 300 }),
  )
  .map(([kind, flags, epoch, channel, bytes]) => ({ kind, flags, epoch, channel, payload: Buffer.from(bytes) }))
/** Cut at any places. */
const cut = (bytes: Buffer, cuts: number[]): Buffer[] => {
  const places = [0, ...cuts.map((at) => at % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
  return places.slice(1).map((to, n) => bytes.subarray(places[n], to))
}
const anyCuts = fc.array(fc.nat(), { maxLength: 20 })
const nothing = Buffer.alloc(PADDING)

describe('frames', () => {
  test('come out as they went in, however the stream is cut', () => {
    fc.assert(
      fc.property(fc.array(anyFrame, { maxLength: 10 }), anyCuts, (sent, cuts) => {
        const parser = new FrameParser()
        assert.deepEqual(frames(parser, ...cut(Buffer.concat(sent.map(encodeFrame)), cuts)), sent)
        assert.equal(parser.skipped, 0)
      }),
    )
  })

  test('after whatever a dead writer left, padding makes the next ones be found', () => {
    const rubbish = fc.oneof(
      fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes)),
      // A frame cut short, with frames inside.
      fc.tuple(fc.array(anyFrame, { minLength: 1, maxLength: 5 }), fc.nat()).map(([inner, at]) => {
        const payload = Buffer.concat(inner.map(encodeFrame))
        const outer = encodeFrame({ kind: 6, flags: 0, epoch: 1, channel: 1, payload })
        return outer.subarray(0, at % outer.length)
      }),
    )
    fc.assert(
      fc.property(rubbish, fc.array(anyFrame, { minLength: 1, maxLength: 5 }), anyCuts, (before, sent, cuts) => {
        const stream = Buffer.concat([before, nothing, ...sent.map(encodeFrame)])
        const found = frames(new FrameParser(), ...cut(stream, cuts))
        assert.deepEqual(found.slice(-sent.length), sent)
      }),
    )
  })

  test('inside a frame that was cut short nothing is taken for a frame', () => {
    fc.assert(
      fc.property(fc.array(anyFrame, { minLength: 1, maxLength: 5 }), fc.nat(), (inner, at) => {
        const payload = Buffer.concat(inner.map(encodeFrame))
        const outer = encodeFrame({ kind: 6, flags: 0, epoch: 1, channel: 1, payload })
        const half = outer.subarray(0, HEADER + (at % payload.length))
        assert.deepEqual(frames(new FrameParser(), half, nothing), [])
      }),
    )
  })

  test('a damaged one is dropped whole; nothing that was not sent comes out', () => {
    fc.assert(
      fc.property(
        fc.array(anyFrame, { minLength: 1, maxLength: 5 }),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        (sent, at, flip) => {
          const stream = Buffer.concat(sent.map(encodeFrame))
          const place = at % stream.length
          stream.writeUInt8(stream.readUInt8(place) ^ flip, place)
          const damaged = sent.findIndex(
            (_, n) => place < sent.slice(0, n + 1).reduce((sum, f) => sum + HEADER + f.payload.length, 0),
          )
          const found = frames(new FrameParser(), stream, nothing)
          assert.deepEqual(found, sent.toSpliced(damaged, 1))
        },
      ),
    )
  })

  test('longer messages take more frames, and a payload beyond the bound is refused', () => {
    const message = Buffer.alloc(MAX_PAYLOAD * 2 + 1, 7)
    const parts = frames(new FrameParser(), ...encodeMessage(KIND.reply, 5, 9, message))
    assert.deepEqual(
      parts.map(({ flags, payload }) => [flags, payload.length]),
      [
        [1, MAX_PAYLOAD],
        [1, MAX_PAYLOAD],
        [0, 1],
      ],
    )
    assert.throws(() => encodeFrame({ kind: 1, flags: 0, epoch: 0, channel: 0, payload: message }), RangeError)
    assert.throws(() => new PayloadReader(Buffer.of(5, 0, 0, 0, 1)).text(), { code: 'GuestFailed' })
    assert.throws(() => new PayloadReader(Buffer.of(255, 255, 255, 255)).list((r) => r.u8()), { code: 'GuestFailed' })
  })

  test('answers of any bytes are refused, or are what the model allows', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        for (const decode of [readExecInfo, readFileInfo, readMetrics]) {
          try {
            decode(new PayloadReader(bytes))
          } catch (error) {
            assert.equal((error as { code?: string }).code, 'GuestFailed')
          }
        }
      }),
    )
  })
})

/** The frames both sides agree on: a name and a frame in hexadecimal on each line. */
const golden = new Map(
  readFileSync(new URL('../../../../native/guest/golden-frames.txt', import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => line && !line.startsWith('#'))
    .map((line) => {
      const [name = '', hex = ''] = line.split(' ')
      return [name, Buffer.from(hex, 'hex')]
    }),
)
const payloadOf = (name: string): PayloadReader => {
  const [frame, ...more] = frames(new FrameParser(), golden.get(name) ?? Buffer.alloc(0))
  assert.ok(frame && more.length === 0, name)
  return new PayloadReader(frame.payload)
}

describe('golden frames', () => {
  const sent: Record<string, () => Buffer> = {
    attach: () =>
      encodeFrame({
        kind: KIND.attach,
        flags: 0,
        epoch: 0,
        channel: 0,
        payload: new PayloadWriter().u32(0xdead_beef).done(),
      }),
    hello: () =>
      open(1, 1, helloBody({ ...HELLO, env: { A: '1', B: 'é' } }, 1_790_000_000_123, Buffer.alloc(32, 0xab))),
    'exec-plain': () => open(2, 10, execBody(ExecRequest.parse({ argv: ['true'] }))),
    'exec-full': () =>
      open(
        3,
        10,
        execBody(
          ExecRequest.parse({
            argv: ['sh', '-c', 'echo'],
            env: { K: 'V' },
            cwd: '/w',
            user: 'u:g',
            pty: { cols: 80, rows: 24 },
            stdin: true,
            timeoutMs: 1500,
            keepBytes: 8192,
            overflow: 'block',
            tag: 't',
          }),
        ),
      ),
    'attach-exec': () => open(4, 11, attachBody('1790000000123', { stderr: 7 })),
    'data-stdin': () =>
      encodeFrame({ ...at(3), kind: KIND.data, payload: new PayloadWriter().u64(5).raw(Buffer.from('in')).done() }),
    credit: () => encodeFrame({ ...at(3), kind: KIND.credit, payload: new PayloadWriter().u8(1).u32(65_536).done() }),
    'end-stdin': () => encodeFrame({ ...at(3), kind: KIND.end, payload: new PayloadWriter().u64(7).done() }),
    close: () => encodeFrame({ ...at(3), kind: KIND.close, payload: Buffer.alloc(0) }),
  }
  const at = (channel: number) => ({ flags: 0, epoch: 0xdead_beef, channel })
  const open = (channel: number, operation: number, body: Buffer) =>
    encodeFrame({
      ...at(channel),
      kind: KIND.open,
      payload: new PayloadWriter().u8(operation).u32(262_144).raw(body).done(),
    })

  for (const [name, make] of Object.entries(sent))
    test(`${name} is what we send`, () => assert.equal(make().toString('hex'), golden.get(name)?.toString('hex')))

  test('what the guest sends is understood', () => {
    const greeting = payloadOf('attached')
    assert.deepEqual([greeting.u8(), greeting.text()], [1, '0.1.0'])
    assert.deepEqual(readExecInfo(payloadOf('exec-info')), {
      id: '1790000000123',
      pid: 42,
      argv: ['sh', '-c', 'echo'],
      cwd: '/w',
      user: 'u',
      tag: 't',
      pty: false,
      startedAt: '2026-09-21T14:13:20.123Z',
      stdoutBytes: 10,
      stderrBytes: 0,
      stdinBytes: 3,
      exit: { signal: 'SIGKILL', timedOut: true },
    })
    assert.deepEqual(readFileInfo(payloadOf('file-info')), {
      path: '/a/\ufffd',
      name: '\ufffd',
      type: 'symlink',
      size: 3,
      mode: 0o777,
      uid: 1,
      gid: 2,
      owner: 'u',
      group: '2',
      modifiedAt: '1969-12-31T23:59:59.500Z',
      target: 'to',
    })
    const error = payloadOf('error')
    assert.deepEqual([error.text(), error.i32(), error.text()], ['NotFound', 2, '/x: No such file or directory'])
    const data = payloadOf('data-output')
    assert.deepEqual([data.u8(), data.u64(), data.rest().toString()], [1, 1_048_576, 'out'])
    const gap = payloadOf('event-gap')
    assert.deepEqual([gap.u8(), gap.u8(), gap.u64(), gap.u64()], [1, 0, 5, 4096])
    const exit = payloadOf('event-exit')
    assert.deepEqual([exit.u8(), exit.u32(), exit.u8()], [2, 3, 0])
  })

  test('every one is looked at', () => {
    const received = ['attached', 'exec-info', 'file-info', 'error', 'data-output', 'event-gap', 'event-exit']
    assert.deepEqual([...golden.keys()].sort(), [...Object.keys(sent), ...received].sort())
  })
})
