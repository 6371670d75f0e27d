import { createHash } from 'node:crypto'
import { access, copyFile, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { cacheDirectory } from '../cache.ts'
import { command, firstLine } from './command.ts'
import { makeOnce } from './made.ts'
import { aptInstall } from './packages.ts'
import type { Step } from './step.ts'

const DEADLINE_MS = 900_000

/** Other people's packages in a directory of the cache that is named by everything that was asked for. */
export interface ForeignPackages {
  /** Where they are once the step is done. */
  path(signal: AbortSignal): Promise<string>
  step: Step
}

const there = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  )

function foreignPackages(
  name: string,
  why: string,
  registry: string,
  path: ForeignPackages['path'],
  install: (scratch: string, say: (line: string) => void, signal: AbortSignal) => Promise<void>,
): ForeignPackages {
  const step: Step = {
    name,
    why,
    remedy: `Check that ${registry} can be reached with the settings of this machine, then run this again.`,
    async isDone(signal) {
      return (await there(await path(signal))) ? 'all installed' : undefined
    },
    async run(say, signal) {
      const make = async (scratch: string) => {
        await install(scratch, say, signal)
        return scratch
      }
      await makeOnce(await path(signal), make, signal)
      return 'installed'
    },
  }
  return { path, step }
}

const hashed = (texts: (string | Buffer)[]): string => {
  const hash = createHash('sha256')
  for (const text of texts) hash.update(text).update('\0')
  return hash.digest('hex').slice(0, 12)
}

/** What package.json and package-lock.json of the directory ask for; `node_modules` is in the path. No script of theirs is run. */
export function npmPackages(name: string, why: string, directory: string): ForeignPackages {
  const files = ['package.json', 'package-lock.json']
  const path = async () => {
    const contents = await Promise.all(files.map((file) => readFile(join(directory, file))))
    return join(cacheDirectory(), `npm-${hashed(contents)}`)
  }
  // What an npm that runs us says about our own tree is not meant for this one.
  const env = Object.fromEntries(
    Object.keys(process.env).flatMap((key) =>
      /^npm_(config_(local_)?prefix|package)/i.test(key) ? [[key, undefined]] : [],
    ),
  )
  return foreignPackages(name, why, 'the npm registry', path, async (scratch, say, signal) => {
    for (const file of files) await copyFile(join(directory, file), join(scratch, file))
    const args = ['ci', '--prefix', scratch, '--ignore-scripts', '--no-audit', '--no-fund']
    await command('npm', args, { cwd: scratch, env, deadlineMs: DEADLINE_MS, onLine: say }, signal)
  })
}

/** A virtual environment of this machine's python3 with what the requirements file, which has hashes, asks for. */
export function pythonPackages(name: string, why: string, requirements: string): ForeignPackages {
  const path = async (signal: AbortSignal) => {
    const version = (await firstLine('python3', ['--version'], signal)) ?? ''
    return join(cacheDirectory(), `python-${hashed([await readFile(requirements), version])}`)
  }
  return foreignPackages(name, why, 'the Python package index', path, async (scratch, say, signal) => {
    const run = (program: string, ...args: string[]) =>
      command(program, args, { deadlineMs: DEADLINE_MS, env: { PYTHONHOME: undefined }, onLine: say }, signal)
    // Debian has the two halves of what venv needs in packages of their own, the second named by its version.
    const able = () => run('python3', '-c', 'import ensurepip, venv').catch(() => undefined)
    if ((await able()) === undefined) await aptInstall(['python3', 'python3-venv'], say, signal)
    await run('python3', '-m', 'venv', scratch)
    const python = join(scratch, 'bin', 'python')
    const options = ['--no-input', '--disable-pip-version-check', '--require-hashes']
    await run(python, '-m', 'pip', 'install', ...options, '--requirement', requirements)
  })
}
