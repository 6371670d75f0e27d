import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { define, JSON_FLAG } from '../command.ts'

const BENCH = join(import.meta.dirname, '../../../../bench/main.ts')

export const command = define({
  arguments: [{ name: 'scenario', summary: 'Only this one. Default: all.', optional: true }],
  flags: JSON_FLAG,
  async run({ arguments: { scenario }, flags }) {
    const words = [...(scenario === undefined ? [] : [scenario]), ...(flags.json ? ['--json'] : [])]
    const child = spawn(process.execPath, [BENCH, ...words], { stdio: 'inherit' })
    // On a terminal the child gets Ctrl-C by itself, being of the same group, and cleans up before it ends.
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => child.kill(name))
    const [code] = await once(child, 'exit')
    return typeof code === 'number' ? code : 1
  },
})
