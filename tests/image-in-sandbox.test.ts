import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chown, link, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { BASE_IMAGE } from '@icebox/node'
import { eventually, output, ServerProcess } from './server-process.ts'

let server: ServerProcess
let scratch = ''
before(async () => {
  server = await ServerProcess.start('image')
  scratch = await mkdtemp(join(tmpdir(), 'icebox-root-'))
})
after(async () => {
  await server[Symbol.asyncDispose]()
  await rm(scratch, { recursive: true, force: true })
})

test('owners, modes, links and extended attributes of an image are seen inside, in forks too', async () => {
  const root = join(scratch, 'root')
  await mkdir(root)
  // The base image's own root file system, from a sandbox, with more added to it.
  const image = await server.icebox.images.pull(BASE_IMAGE)
  execFileSync('sh', [
    '-c',
    `fsck.erofs --extract=${root} --overwrite ${join(server.dataDirectory, 'images', image.id, 'image.erofs')}`,
  ])
  await mkdir(join(root, 'opt/facts'))
  const file = (name: string) => join(root, 'opt/facts', name)
  await writeFile(file('owned'), 'owned by 1000', { mode: 0o640 })
  await chown(file('owned'), 1000, 1000)
  await writeFile(file('one'), 'two names')
  await link(file('one'), file('two'))
  await symlink('owned', file('soft'))
  execFileSync('cp', [join(root, 'usr/bin/id'), file('setuid')])
  execFileSync('chmod', ['4755', file('setuid')])
  execFileSync('setfattr', ['-n', 'user.colour', '-v', 'blue', file('owned')])
  execFileSync('cp', [join(root, 'usr/bin/id'), file('capable')])
  execFileSync('setcap', ['cap_net_raw+ep', file('capable')])

  const made = await server.icebox.images.pull(`dir:${root}`)
  const sandbox = await server.icebox.sandboxes.create({ image: made.digest })
  const script = `
import os
d = '/opt/facts/'
s = os.stat(d + 'owned')
print(s.st_uid, s.st_gid, oct(s.st_mode), os.getxattr(d + 'owned', 'user.colour').decode())
print(os.stat(d + 'one').st_ino == os.stat(d + 'two').st_ino, os.stat(d + 'one').st_nlink, os.readlink(d + 'soft'))
print(oct(os.stat(d + 'setuid').st_mode), os.getxattr(d + 'capable', 'security.capability').hex())`
  const seen = await output(sandbox.exec(['python3', '-c', script]))
  assert.deepEqual(seen.split('\n'), [
    '1000 1000 0o100640 blue',
    'True 2 owned',
    // cap_net_raw permitted and effective, as version 2 of the attribute has it.
    '0o104755 0100000200200000000000000000000000000000',
  ])
  const [fork] = await sandbox.fork(1)
  assert.ok(fork)
  assert.equal(await output(fork.exec(['python3', '-c', script])), seen)
  await Promise.all([sandbox.delete(), fork.delete()])
  await eventually(
    async () => ((await server.icebox.sandboxes.list()).length === 0 ? true : undefined),
    'both are gone',
  )
})
