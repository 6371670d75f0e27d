import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { IceboxError } from '@icebox/model'

const PREFIX = '.icebox-'
const UNWRITABLE = ['EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EEXIST']
const FORM = /^\.icebox-([0-9]+)-([0-9]+)-[A-Za-z0-9]+$/

/** A directory for work under way. Its name says which process owns it, so that what a crash leaves can be told and removed. */
export class Scratch {
  readonly path: string

  private constructor(path: string) {
    this.path = path
  }

  /**
   * Makes one below the parent, which is made too, and removes those whose owner is gone.
   * Throws `InvalidArgument` when nothing can be made there.
   */
  static async create(parent: string): Promise<Scratch> {
    try {
      await mkdir(parent, { recursive: true })
      await Scratch.sweep(parent)
      const started = await startTime(process.pid)
      return new Scratch(await mkdtemp(join(parent, `${PREFIX}${process.pid}-${started ?? 0}-`)))
    } catch (thrown) {
      if (!(thrown instanceof Error && 'code' in thrown && UNWRITABLE.includes(String(thrown.code)))) throw thrown
      throw new IceboxError('InvalidArgument', `nothing can be written in ${parent}: ${thrown.message}`, {
        cause: thrown,
      })
    }
  }

  static async sweep(parent: string): Promise<void> {
    for (const name of await readdir(parent)) {
      const [, pid, started] = FORM.exec(name) ?? []
      if (pid === undefined || (await startTime(Number(pid))) === Number(started)) continue
      await rm(join(parent, name), { recursive: true, force: true })
    }
  }

  async remove(): Promise<void> {
    // A process that was killed may still be writing.
    await rm(this.path, { recursive: true, force: true, maxRetries: 10 })
  }
}

/** Clock ticks from boot to the start of a process, which tells it from a later one with the same pid. Undefined: no such process. */
async function startTime(pid: number): Promise<number | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  // The program's name, in parentheses, may hold anything.
  const after = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
  return after === undefined ? undefined : Number(after[19])
}
