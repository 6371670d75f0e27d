import { readdir, realpath, symlink } from 'node:fs/promises'
import { delimiter, isAbsolute, join } from 'node:path'
import { command, locate, RUNTIME_REQUIREMENTS, TEST_REQUIREMENTS } from '@icebox/node'

const REQUIREMENTS = [...RUNTIME_REQUIREMENTS, ...TEST_REQUIREMENTS]
/** What set-up calls by name, wherever the machine has it. */
const BY_NAME = ['node', 'npm', 'npx', 'python3', ...REQUIREMENTS.map(({ needs }) => needs)]
const FIELDS = [
  'binary:Package',
  'db:Status-Status',
  'Package',
  'Essential',
  'Priority',
  'Provides',
  'Pre-Depends',
  'Depends',
]
const DEADLINE_MS = 60_000

/**
 * Fills a directory with links to the programs that a fresh machine has after set-up: those of the packages that every Debian
 * or Ubuntu has, of the requirements, and of what these depend on. With it as PATH, a test that calls anything else fails on
 * every machine, however much that has.
 */
export async function linkPromisedPrograms(directory: string, signal: AbortSignal): Promise<void> {
  const query = (...args: string[]) => command('dpkg-query', args, { deadlineMs: DEADLINE_MS }, signal)
  const packages = promisedPackages(
    await query('--show', `--showformat=${FIELDS.map((field) => `$\{${field}}`).join('\\t')}\\n`),
  )
  const paths = (await query('--listfiles', ...packages)).split('\n').filter((path) => /\/s?bin\/[^/]+$/.test(path))
  const promised = new Set(await Promise.all(paths.map((path) => realpath(path).catch(() => path))))
  const links = new Map<string, string>()
  for (const name of BY_NAME) {
    const found = isAbsolute(name) ? undefined : await locate(name)
    if (found !== undefined) links.set(name, found)
  }
  // Looked for on PATH, because alternatives are links that no package lists.
  for (const place of (process.env.PATH ?? '').split(delimiter))
    for (const name of await readdir(place).catch(() => [])) {
      const path = join(place, name)
      if (!links.has(name) && promised.has(await realpath(path).catch(() => ''))) links.set(name, path)
    }
  for (const [name, path] of links) await symlink(path, join(directory, name))
}

/** What dpkg-query calls the promised packages, from its listing of all. Of alternatives the first counts, as for apt on a fresh machine. */
function promisedPackages(listing: string): string[] {
  /** By name: what of it is installed, which can be several architectures, and names of what that needs. */
  const installed = new Map<string, { instances: string[]; needs: string[] }>()
  const providers = new Map<string, string[]>()
  const wanted = ['python3', 'python3-venv', ...REQUIREMENTS.map((requirement) => requirement.package)]
  const names = (list: string) => list.split(',').flatMap((each) => /^\s*([a-z0-9][a-z0-9+.-]*)/.exec(each)?.[1] ?? [])
  for (const line of listing.split('\n')) {
    const [instance = '', status, name = '', essential, priority, provides = '', ...needs] = line.split('\t')
    if (status !== 'installed') continue
    const { instances } = installed.get(name) ?? { instances: [] }
    installed.set(name, { instances: [...instances, instance], needs: needs.flatMap(names) })
    for (const provided of names(provides)) providers.set(provided, [...(providers.get(provided) ?? []), name])
    if (essential === 'yes' || priority === 'required') wanted.push(name)
  }
  const promised = new Set<string>()
  for (let name = wanted.pop(); name !== undefined; name = wanted.pop()) {
    if (promised.has(name)) continue
    promised.add(name)
    wanted.push(...(installed.get(name)?.needs ?? providers.get(name) ?? []))
  }
  return [...promised].flatMap((name) => installed.get(name)?.instances ?? [])
}
