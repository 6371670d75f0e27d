import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, readlink, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createNetwork, removeNetwork } from './namespace.ts'

const within = (path: string, ...command: string[]) =>
  execFileSync('nsenter', [`--net=${path}`, ...command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })

test('a network has only lo, up, is apart from the host’s and goes without a trace', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-network-'))
  const path = join(directory, 'network')
  const home = await readlink('/proc/self/ns/net')
  try {
    await createNetwork(path)
    assert.equal(await readlink('/proc/self/ns/net'), home)
    assert.equal(await readlink('/proc/thread-self/ns/net'), home)
    const links = within(path, 'cat', '/proc/net/dev').trim().split('\n').slice(2)
    assert.equal(links.length, 1)
    assert.match(links[0] ?? '', /^\s*lo:/)
    assert.match(within(path, 'ip', '-o', 'address', 'show', 'up'), /inet 127\.0\.0\.1\/8/)
    const server = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const address = server.address()
    assert.ok(address && typeof address === 'object')
    assert.throws(() => within(path, 'bash', '-c', `: < /dev/tcp/127.0.0.1/${address.port}`))
    server.close()
    await removeNetwork(path)
    await removeNetwork(path)
    assert.ok(!(await readFile('/proc/self/mountinfo', 'utf8')).includes(path))
  } finally {
    await removeNetwork(path)
    await rm(directory, { recursive: true, force: true })
  }
})
