import { constants } from 'node:fs'
import { type FileHandle, open, readlink, realpath } from 'node:fs/promises'
import { join, resolve, sep } from 'node:path'
import { IceboxError, type Principal } from '@icebox/model'

/** A path that is opened without reading: opening a FIFO or a device so has no effect. */
const O_PATH = 0o10_000_000

export interface LocalPlaces {
  /** Directories that every project may have images made of. */
  shared: readonly string[]
  /** Files and directories that no image may be made of, in whole or in part. */
  secret: readonly string[]
}

/**
 * Which files of this machine images are made of. What is looked at is what was opened, not what its path says at some other time:
 * whoever exchanges a directory for a link meanwhile gains nothing.
 */
export class LocalFiles {
  readonly #places: LocalPlaces

  constructor(places: LocalPlaces) {
    this.#places = places
  }

  /** Opens a file or directory, to be read by `pathOf`. Throws `Forbidden`, `NotFound`. */
  async open(path: string, by: Principal): Promise<FileHandle> {
    if (!by.installation && !(await this.#isShared(resolve(path)))) throw notShared(path, by)
    const handle = await open(path, O_PATH).catch((cause: unknown) => {
      throw new IceboxError('NotFound', `${path} cannot be read`, { cause, details: { path } })
    })
    try {
      const real = await readlink(pathOf(handle))
      if (!by.installation && !(await this.#isShared(real))) throw notShared(path, by)
      for (const secret of await realPaths(this.#places.secret))
        if (isWithin(real, secret) || isWithin(secret, real))
          throw new IceboxError('Forbidden', `${path} is, or holds, files that this server keeps to itself`, {
            remedy: 'Copy what the image is to be made of to a directory of its own.',
          })
      return handle
    } catch (thrown) {
      await handle.close()
      throw thrown
    }
  }

  async #isShared(path: string): Promise<boolean> {
    const { shared } = this.#places
    return [...shared, ...(await realPaths(shared))].some((directory) => isWithin(path, directory))
  }
}

/** What is open under this handle, by a path that leads nowhere else, in every process of this one's user. */
export const pathOf = ({ fd }: FileHandle): string => `/proc/${process.pid}/fd/${fd}`

/** Opens a file below an open directory, without following a link on the way. Throws what `open` throws. */
export async function openBeneath(directory: FileHandle, names: readonly string[]): Promise<FileHandle> {
  let at = directory
  for (const [i, name] of names.entries()) {
    if (name === '' || name === '.' || name === '..' || name.includes('/')) throw new TypeError(`${name} is no name`)
    const isLast = i === names.length - 1
    const flags = O_PATH | constants.O_NOFOLLOW | (isLast ? 0 : constants.O_DIRECTORY)
    try {
      const next = await open(join(pathOf(at), name), flags)
      if (at !== directory) await at.close()
      at = next
    } catch (thrown) {
      if (at !== directory) await at.close()
      throw thrown
    }
  }
  return at
}

/** The same failure with the paths that people know for those of handles. */
export function inWords(thrown: unknown, called: ReadonlyMap<string, string>): unknown {
  if (!(thrown instanceof IceboxError) || called.size === 0) return thrown
  const { code, cause, remedy } = thrown
  const said = (text: string) => {
    // The longest first: one may begin with another.
    for (const [path, name] of [...called].sort(([a], [b]) => b.length - a.length)) text = text.replaceAll(path, name)
    return text
  }
  const details = Object.fromEntries(
    Object.entries(thrown.details).map(([key, value]) => [key, typeof value === 'string' ? said(value) : value]),
  )
  return new IceboxError(code, said(thrown.message), { cause, remedy, details })
}

const isWithin = (path: string, directory: string): boolean =>
  path === directory || path.startsWith(directory.endsWith(sep) ? directory : `${directory}${sep}`)

/** Of those that are there. */
async function realPaths(paths: readonly string[]): Promise<string[]> {
  const found = await Promise.all(paths.map((path) => realpath(path).catch(() => undefined)))
  return found.filter((path) => path !== undefined)
}

const notShared = (path: string, { project }: Principal): IceboxError =>
  new IceboxError(
    'Forbidden',
    `${path} is read from the files of the server's machine, which keys of project ${project} may not do`,
    {
      remedy: 'Send it (`icebox image pull`, `POST /v1/images/import`), or pull it from a registry.',
    },
  )
