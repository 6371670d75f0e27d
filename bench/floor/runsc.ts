import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { FLAGS } from '../../packages/node/src/driver/gvisor/runsc.ts'

const DEADLINE_MS = 120_000

/** runsc as somebody would call it by hand, with the flags of the driver. */
export async function runsc(
  program: string,
  place: { root: string; log: string; network: string },
  words: string[],
  stdio: [number | 'ignore', number | 'ignore'],
  signal: AbortSignal,
): Promise<void> {
  const flags = [
    ...FLAGS,
    `--root=${place.root}`,
    `--log=${place.log}`,
    '--log-format=json',
    `--panic-log=${place.log}`,
    `--gofer-network-namespace=${place.network}`,
  ]
  const child = spawn(program, [...flags, ...words], {
    stdio: [...stdio, 'ignore'],
    cwd: '/',
    env: {},
    signal,
    timeout: DEADLINE_MS,
    killSignal: 'SIGKILL',
  })
  const [code, killedBy] = await once(child, 'exit')
  if (code === 0) return
  const said = await readFile(place.log, 'utf8').catch(() => '')
  throw new Error(`runsc ${words.join(' ')}: ${killedBy ?? `exit status ${code}`}\n${said.slice(-2000)}`)
}
