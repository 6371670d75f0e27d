import { posix } from 'node:path'
import { type FileInfo, type Files, isIceboxError } from '@icebox/sdk'
import { Refusal } from '../failure.ts'
import type { Entry, Place } from './place.ts'

/** As many as Linux follows. */
const LINKS = 40

function entryOf(info: FileInfo): Entry {
  const type = info.type === 'file' || info.type === 'directory' || info.type === 'symlink' ? info.type : 'other'
  return { name: info.name, type, mode: info.mode, size: info.size, target: info.target ?? '' }
}

/** A guest may say anything: a name that leads elsewhere, or comes twice, is no name of a file. */
function checked(path: string, entries: Entry[]): Entry[] {
  const names = new Set(entries.map(({ name }) => name))
  const odd = entries.find(({ name }) => name === '' || name === '.' || name === '..' || /[/\0]/.test(name))
  if (odd !== undefined || names.size < entries.length)
    throw new Refusal('InvalidArgument', `the sandbox lists impossible names in ${path}`, 'Do not trust this sandbox.')
  return entries
}

/** A write that the sandbox has no room for. The remedy of the registry is about the disk of the server. */
async function writing<T>(work: Promise<T>): Promise<T> {
  return work.catch((thrown: unknown) => {
    if (!isIceboxError(thrown, 'NoSpace')) throw thrown
    const remedy = 'Free space inside the sandbox, or use a template that was built with a larger --disk.'
    throw new Refusal(thrown.code, thrown.message, remedy)
  })
}

export function sandboxPlace(files: Files): Place {
  const look = async (path: string): Promise<Entry | undefined> => {
    try {
      return entryOf(await files.stat(path))
    } catch (thrown) {
      if (isIceboxError(thrown, 'NotFound')) return undefined
      throw thrown
    }
  }
  return {
    look,
    async follow(path) {
      let at = path
      for (let links = 0; links < LINKS; links += 1) {
        const entry = await look(at)
        if (entry === undefined) return undefined
        if (entry.type !== 'symlink') return { path: at, entry }
        // Not simplified: `..` after a symlinked directory is for the kernel to resolve.
        at = entry.target.startsWith('/') ? entry.target : `${posix.dirname(at)}/${entry.target}`
      }
      return undefined
    },
    async list(path) {
      return checked(path, (await files.list(path, { depth: 1 })).map(entryOf))
    },
    async read(path) {
      return (await files.readStream(path)).data
    },
    async write(path, content, mode) {
      await writing(files.write(path, content, { mode: mode & 0o7777 }))
    },
    async makeDirectory(path, mode) {
      await writing(files.makeDirectory(path, { mode: mode & 0o7777 }))
    },
    async symlink(target, path) {
      try {
        await files.symlink(target, path)
      } catch (thrown) {
        if (!isIceboxError(thrown, 'AlreadyExists')) throw thrown
        if ((await files.stat(path)).type === 'directory') throw thrown
        await files.remove(path)
        await files.symlink(target, path)
      }
    },
    // Made with its mode: what is copied is written with root's rights, which need no more.
    setMode: async () => {},
    nameOf(path) {
      const name = posix.basename(posix.normalize(path))
      return name === '' || name === '.' || name === '..' ? undefined : name
    },
  }
}
