import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * Exits 0 when node_modules holds what package-lock.json says, 1 otherwise. It imports no package: none may be there.
 * Compares npm's own record of what it installed; packages for other platforms are rightly absent from that.
 */
interface Lock {
  packages: Record<
    string,
    { version?: string; integrity?: string; resolved?: string; optional?: boolean; link?: boolean }
  >
}

const root = join(import.meta.dirname, '..')
const read = (path: string): Lock => JSON.parse(readFileSync(join(root, path), 'utf8'))
const wanted = read('package-lock.json').packages
const present = read('node_modules/.package-lock.json').packages
const paths = new Set(
  [...Object.keys(wanted), ...Object.keys(present)].filter((path) => path.startsWith('node_modules/')),
)
const differs = [...paths].some((path) => {
  const [want, have] = [wanted[path], present[path]]
  if (!have) return !want?.optional
  return want?.version !== have.version || want?.integrity !== have.integrity || want?.link !== have.link
})
process.exitCode = differs || !existsSync(join(root, 'node_modules/.bin/icebox')) ? 1 : 0
