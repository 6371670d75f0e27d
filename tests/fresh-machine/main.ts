import { FreshMachine, MACHINES } from './machine.ts'

/**
 * Runs a command in a clone on a fresh machine, which goes when the command ends. Needs what `npm test` sets up:
 *     node_modules/.bin/node tests/fresh-machine/main.ts debian-12 npm test
 * A server there must not have a data directory of the same path as one here: both would have the same control groups.
 */

const isMachine = (name: string | undefined): name is keyof typeof MACHINES =>
  name !== undefined && Object.hasOwn(MACHINES, name)

const [name, program, ...args] = process.argv.slice(2)
if (!isMachine(name) || program === undefined) {
  console.error(`usage: tests/fresh-machine/main.ts ${Object.keys(MACHINES).join('|')} COMMAND...`)
  process.exitCode = 2
} else {
  const interrupted = new AbortController()
  for (const ending of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(ending, () => interrupted.abort(new Error(`interrupted by ${ending}`)))
  await using machine = await FreshMachine.install(name, interrupted.signal)
  await machine.run(program, args, interrupted.signal, console.log)
}
