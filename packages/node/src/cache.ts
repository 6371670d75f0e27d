import { homedir } from 'node:os'
import { join, resolve } from 'node:path'

/**
 * Where built programs and downloads are kept, outside the source tree and shared by every checkout: absolute path,
 * which need not exist yet. `ICEBOX_CACHE`; else `/var/cache/icebox` for root; else `$XDG_CACHE_HOME/icebox`
 * (`~/.cache/icebox`). Nothing in it is precious: whatever is missing is made again.
 */
export function cacheDirectory(): string {
  const named = process.env.ICEBOX_CACHE
  if (named !== undefined && named !== '') return resolve(named)
  if (process.getuid?.() === 0) return '/var/cache/icebox'
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'icebox')
}
