import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Sandbox } from '@icebox/sdk'
import { buildBase, output, ServerProcess } from './server-process.ts'

let server: ServerProcess
let sandbox: Sandbox
before(async () => {
  server = await ServerProcess.start('computer')
  await buildBase(server.icebox)
  sandbox = await server.icebox.sandboxes.create({ template: 'base' })
})
after(() => server[Symbol.asyncDispose]())

const sh = (script: string, options: { user?: string } = {}) => output(sandbox.exec(['sh', '-ec', script], options))

test('users can be added, become root by sudo, and own files', async () => {
  await sh('useradd -m -s /bin/bash -u 1000 agent && echo "agent ALL=(ALL) NOPASSWD: ALL" > /etc/sudoers.d/agent')
  assert.equal(await sh('id -un; id -u', { user: 'agent' }), 'agent\n1000')
  assert.equal(await sh('sudo id -u', { user: 'agent' }), '0')
  await sh('echo mine > /srv/file && chown agent:agent /srv/file && chmod 600 /srv/file')
  assert.equal(await sh('cat /srv/file; stat -c "%U %a" /srv/file', { user: 'agent' }), 'mine\nagent 600')
  await assert.rejects(sh('cat /etc/shadow', { user: 'agent' }), /denied/)
})

test('apt-get installs a local package', async () => {
  await sh(`
    mkdir -p /tmp/hello/DEBIAN /tmp/hello/usr/local/bin
    printf 'Package: hello-icebox\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody <nobody@example.org>\\nDescription: test\\n' > /tmp/hello/DEBIAN/control
    printf '#!/bin/sh\\necho "hello from a package"\\n' > /tmp/hello/usr/local/bin/hello-icebox
    chmod 755 /tmp/hello/usr/local/bin/hello-icebox
    dpkg-deb --build --root-owner-group /tmp/hello /tmp/hello.deb`)
  await sh('apt-get install -y --no-install-recommends /tmp/hello.deb')
  assert.equal(
    await sh('hello-icebox && dpkg-query -s hello-icebox | grep ^Status'),
    'hello from a package\nStatus: install ok installed',
  )
})

test('what was installed is there in a fork and after a pause', async () => {
  const [fork] = await sandbox.fork(1)
  assert.ok(fork)
  assert.equal(await output(fork.exec(['hello-icebox'])), 'hello from a package')
  await fork.delete()
  await sandbox.pause()
  await sandbox.resume()
  assert.equal(await sh('hello-icebox; sudo id -u', { user: 'agent' }), 'hello from a package\n0')
})

test('a sandbox knows its size: memory, cores and disk', async () => {
  const { size } = await sandbox.info()
  const memoryKiB = Number(await sh("awk '/^MemTotal/{print $2}' /proc/meminfo"))
  assert.equal(Math.round(memoryKiB / 1024), size.memoryMiB)
  assert.equal(Number(await sh('nproc')), Math.ceil(size.cpu))
  const diskMiB = Number(await sh('df -m --output=size / | tail -n1'))
  assert.ok(Math.abs(diskMiB - size.diskMiB) <= 1, `df says ${diskMiB} MiB, the size is ${size.diskMiB}`)
  // Past its disk a sandbox gets ENOSPC, and goes on.
  await assert.rejects(sh(`head -c ${(size.diskMiB + 64) * 2 ** 20} /dev/zero > /root/full`), /No space left/)
  await sh('rm /root/full && echo ok > /root/again')
})
