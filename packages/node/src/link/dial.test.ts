import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import type { ExecSession } from '@icebox/model'
import type { GuestLink } from './link.ts'
import { collect, TestGuest } from './testing.ts'

const signal = AbortSignal.timeout(60_000)

/** Listens in the guest; each connection is handled by the Perl code, with the socket as $c. */
const server = (address: string, handle: string) => `use IO::Socket::IP; $| = 1; $SIG{CHLD} = 'IGNORE';
my $s = IO::Socket::IP->new(LocalHost => '${address}', LocalPort => 0, Listen => 64, V6Only => 1) or die "$@"; print $s->sockport, "\\n";
while (my $c = $s->accept) { next if fork; close $s; ${handle}; exit }`

describe('dialling into a guest', { timeout: 60_000 }, () => {
  let guest: TestGuest
  let link: GuestLink
  const servers: ExecSession[] = []
  before(async () => {
    const started = await TestGuest.running(signal)
    guest = started.guest
    link = started.link
  })
  after(() => guest?.stop())

  const listen = async (handle: string, address = '127.0.0.1') => {
    const session = await link.exec({ argv: ['perl', '-e', server(address, handle)] }, signal)
    servers.push(session)
    for await (const event of session.events) {
      if (event.type === 'exit') assert.fail('the server ended')
      if (event.type === 'output' && event.stream === 'stdout') return Number(Buffer.from(event.data).toString())
      if (event.type === 'output') assert.fail(Buffer.from(event.data).toString())
    }
    return 0
  }
  const echo = 'while (sysread($c, my $b, 65536)) { syswrite($c, $b) }'

  test('bytes go both ways, and the end of one direction is not the end of the other', async () => {
    for (const address of ['127.0.0.1', '::1']) {
      const connection = await link.dial(await listen(echo, address), signal)
      const sent = randomBytes(3_000_000)
      const writing = connection.write(sent).then(() => connection.end())
      const parts: Uint8Array[] = []
      for await (const part of connection.readable) parts.push(part)
      await writing
      assert.ok(Buffer.concat(parts).equals(sent))
    }
    const late = await link.dial(
      await listen('1 while sysread($c, my $b, 65536); syswrite($c, "after the end")'),
      signal,
    )
    await late.write(Buffer.from('request'))
    await late.end()
    const parts: Uint8Array[] = []
    for await (const part of late.readable) parts.push(part)
    assert.equal(Buffer.concat(parts).toString(), 'after the end')
  })

  test('what was said before an end that came too early for what is sent can be read', async () => {
    const connection = await link.dial(await listen('sysread($c, my $b, 1); syswrite($c, "no more")'), signal)
    const writing = (async () => {
      for (;;) await connection.write(randomBytes(65_536))
    })()
    const refused = assert.rejects(writing)
    const parts: Uint8Array[] = []
    await assert.rejects(async () => {
      for await (const part of connection.readable) parts.push(part)
    })
    assert.equal(Buffer.concat(parts).toString(), 'no more')
    await refused
  })

  test('nobody listens: said so, with the port', async () => {
    await assert.rejects(link.dial(1, signal), (error: { code: string; details: object }) => {
      assert.equal(error.code, 'NotFound')
      assert.deepEqual(error.details, { errno: 111, port: 1 })
      return true
    })
    for (const port of [0, 65_536, 1.5]) await assert.rejects(link.dial(port, signal), { code: 'InvalidArgument' })
  })

  test('many at once, and one that is not read holds up no other', async () => {
    const flood = await link.dial(await listen('1 while syswrite($c, "x" x 65536)'), signal)
    const port = await listen(echo)
    await Promise.all(
      Array.from({ length: 30 }, async (_, n) => {
        const connection = await link.dial(port, signal)
        await connection.write(Buffer.from(`hello ${n}`))
        await connection.end()
        const parts: Uint8Array[] = []
        for await (const part of connection.readable) parts.push(part)
        assert.equal(Buffer.concat(parts).toString(), `hello ${n}`)
      }),
    )
    flood.destroy()
  })

  test('a destroyed connection is closed in the guest; one the guest breaks ends with an error or its end', async () => {
    const waiting = await listen('sysread($c, my $b, 1); print "gone\\n"')
    const session = servers.at(-1)
    const connection = await link.dial(waiting, signal)
    connection.destroy()
    for await (const event of session?.events ?? []) {
      if (event.type === 'output' && Buffer.from(event.data).toString() === 'gone\n') break
    }
    await assert.rejects(connection.write(Buffer.from('x')), { code: 'GuestFailed' })
    const broken = await link.dial(await listen('close $c'), signal)
    const read = (async () => {
      for await (const _ of broken.readable);
    })()
    await read.catch((error) => assert.equal(error.code, 'InvalidArgument'))
  })

  test('servers end with their guest', async () => {
    for (const session of servers) await session.kill('SIGKILL', signal)
    for (const session of servers) assert.equal((await collect(session.events)).exit?.signal, 'SIGKILL')
  })
})
