import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { BASE_TEMPLATE } from '@icebox/node'
import { isIceboxError, type Sandbox } from '@icebox/sdk'
import { output, ServerProcess } from './server-process.ts'

suite('the template base', () => {
  let server: ServerProcess
  let sandbox: Sandbox
  before(async () => {
    server = await ServerProcess.start('base', { flags: [] })
    // At once: the build has hardly begun, and the create waits for it.
    sandbox = await server.icebox.sandboxes.create({ template: 'base' })
  })
  after(() => server?.[Symbol.asyncDispose]())
  const sh = (script: string) => output(sandbox.exec(['bash', '-c', script]))

  test('commands are those of an ordinary user in the home', async () => {
    assert.equal(await sh('whoami; id -u; id -g; pwd; echo $HOME $USER $SHELL $LANG'), USER_FACTS)
    assert.equal(await sh('echo x > new && stat -c %U:%G new . && ls -A | sort | tr "\\n" " "'), HOME_FACTS)
  })

  test('sudo works without a password and without a word', async () => {
    const { exitCode, stdout, stderr } = await sandbox.exec(['sudo', 'id', '-u'])
    assert.deepEqual([exitCode, stdout.trim(), stderr], [0, '0', ''])
    assert.equal(await sh('sudo touch /etc/mine && stat -c %U /etc/mine'), 'root')
    assert.equal(await sh('getent hosts "$(hostname)" | wc -l'), '1')
  })

  test('a login shell is the same user with the same language', async () => {
    const { exitCode, stdout, stderr } = await sandbox.exec([
      'bash',
      '-lc',
      'echo $HOME $LANG; echo é | wc -m; type -P ls',
    ])
    assert.deepEqual([exitCode, stdout, stderr], [0, '/home/user C.UTF-8\n2\n/usr/bin/ls\n', ''])
  })

  test('it has the programs that agents expect', async () => {
    await sh(
      'git --version && curl --version && python3 --version && ps --version && test -s /etc/ssl/certs/ca-certificates.crt',
    )
    assert.equal(await sh('git init -q repo && cd repo && python3 -c "print(6 * 7)"'), '42')
  })

  test('its size and image are as documented; a deleted one is made again by the next start, unless told not to', async () => {
    const { icebox } = server
    const { size, image, status } = await icebox.templates.get('base')
    assert.deepEqual([size, image, status.state], [BASE_TEMPLATE.size, BASE_TEMPLATE.image, 'Ready'])
    await sandbox.delete()
    await icebox.templates.delete('base')
    await server.down('kill')
    await server.restart(['--no-base'])
    await assert.rejects(server.icebox.templates.get('base'), (error) => isIceboxError(error, 'NotFound'))
    await server.kill()
    await server.restart([])
    // Killed in the middle of the build: the next start begins it again.
    await server.kill()
    await server.restart()
    const again = await server.icebox.sandboxes.create({ template: 'base' })
    assert.equal(await output(again.exec(['whoami'])), 'user')
  })
})

const USER_FACTS = ['user', '1000', '1000', '/home/user', '/home/user user /bin/bash C.UTF-8'].join('\n')
const HOME_FACTS = ['user:user', 'user:user', '.bash_logout .bashrc .profile new'].join('\n')
