import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { LASTING } from './lasting.ts'

/** Lines of the unit by their key. */
async function unit(): Promise<Map<string, string>> {
  const text = await readFile(join(import.meta.dirname, '../../../../deploy/icebox.service'), 'utf8')
  const settings = text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#') && !line.startsWith('['))
    .map((line): [string, string] => {
      const at = line.indexOf('=')
      assert.ok(at > 0, line)
      return [line.slice(0, at), line.slice(at + 1)]
    })
  assert.equal(new Set(settings.map(([key]) => key)).size, settings.length, 'a key stands there twice')
  return new Map(settings)
}

test('systemd starts a server that dies again, ever later, and leaves its machines alone', async () => {
  const settings = await unit()
  assert.equal(settings.get('Restart'), 'on-failure')
  assert.equal(settings.get('StartLimitIntervalSec'), '0')
  assert.equal(settings.get('RestartSec'), '500ms')
  assert.equal(settings.get('RestartMaxDelaySec'), '60')
  assert.equal(settings.get('KillMode'), 'process')
  assert.equal(settings.get('OOMPolicy'), 'continue')
  assert.ok(Number(settings.get('OOMScoreAdjust')) < 0)
  assert.equal(settings.get('Delegate'), 'yes')
  assert.deepEqual(settings.get('RestartPreventExitStatus')?.split(' '), ['2', String(LASTING)])
  // The server counts on it, see recordUnseenDeath.
  assert.match(settings.get('ExecStopPost') ?? '', /"\$SERVICE_RESULT \$EXIT_CODE \$EXIT_STATUS" >.*\/service-result'$/)
})
