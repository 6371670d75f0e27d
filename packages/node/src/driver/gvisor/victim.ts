/**
 * For tests: a server that is killed. Works with a driver over the directories given as JSON, and says with a line what it is
 * about to do.
 */
import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { newExecutionId } from '@icebox/model'
import { hello } from '../conformance.ts'
import { gvisorDriver } from './gvisor.ts'

const { work, image, spec, ...paths } = JSON.parse(process.argv[2] ?? '{}')
const signal = new AbortController().signal
const driver = gvisorDriver({ ...paths, imagePath: () => image })
const say = (line: string) => process.stdout.write(`${line}\n`)

say('adopt')
const { machines } = await driver.adopt(signal)
if (work === 'adopt') process.exit(0)
await Promise.all(machines.map((machine) => machine.kill(signal)))
if (work === 'slots') await driver.prepare(spec, 3, signal)
for (;;) {
  say('boot')
  const machine = await driver.boot(newExecutionId(), spec, signal)
  await machine.link.hello(hello(machine.execution), signal)
  const directory = await mkdtemp(join(paths.dataDirectory, 'saved-'))
  say('freeze')
  await machine.link.quiesce(signal)
  await machine.freeze(signal)
  say('save')
  await machine.save(directory, 'memory', signal)
  say('thaw')
  await machine.thaw(signal)
  await machine.link.release(signal)
  say('restore')
  const child = await driver.restore(newExecutionId(), { directory, kind: 'memory' }, spec, signal)
  await child.link.hello(hello(child.execution), signal)
  say('kill')
  await Promise.all([machine.kill(signal), child.kill(signal)])
}
