import { posix } from 'node:path'
import type { Step } from '@icebox/sdk'
import { Refusal } from '../failure.ts'
import type { Content, Entry, Place } from './place.ts'

export interface Side {
  place: Place
  path: string
}
export interface Copied {
  files: number
  bytes: number
  /** Paths of the source that are neither file, directory nor symlink. */
  skipped: string[]
}

/** Files under way at once. */
const PARALLEL = 8

/**
 * Copies as `docker cp` does. A directory goes into a target that is a directory under its own name, with `/.` at its end
 * only what it holds; to a target that is not there it becomes that. A file goes into a directory under its own name, else it
 * becomes the target. The directory that the target is in must exist. Symlinks are copied as they are, permissions are kept
 * (setuid and the like only into a sandbox), owners and times are not.
 */
export async function copy(
  source: Side,
  target: Side,
  onStep: (step: Step) => void,
  signal: AbortSignal,
): Promise<Copied> {
  const from = await sourceOf(source)
  const into = await targetOf(from, target)
  const plan = await scan(source.place, from, into, signal)
  await perform(source.place, target.place, plan, onStep, signal)
  return { files: plan.files.length, bytes: plan.bytes, skipped: plan.skipped }
}

interface Source {
  path: string
  entry: Entry
  /** The name it gets in a directory; undefined: only what it holds is copied. */
  name: string | undefined
}

const isContents = (path: string): boolean => path === '.' || path.endsWith('/.')
const withoutSlashes = (path: string): string => path.replace(/(?<=.)\/+$/, '')
const notFound = (path: string): Refusal => new Refusal('NotFound', `there is no ${path}`, 'Check the path.')
const refuse = (message: string): Refusal => new Refusal('InvalidArgument', message, 'Give another target.')

async function sourceOf({ place, path }: Side): Promise<Source> {
  // A slash at the end means the directory that a symlink points to.
  const through = path.endsWith('/') || isContents(path)
  const bare = withoutSlashes(path)
  const found = through ? await place.follow(bare) : { path: bare, entry: await place.look(bare) }
  if (found?.entry === undefined) throw notFound(path)
  // As a part of a directory it would be skipped; alone, nothing would be left to copy.
  if (found.entry.type === 'other')
    throw new Refusal(
      'InvalidArgument',
      `${path} is neither file, directory nor symlink`,
      'What a pipe, socket or device says is read by a command: `icebox exec`.',
    )
  if (through && found.entry.type !== 'directory') throw refuse(`${path} is not a directory`)
  return { path: found.path, entry: found.entry, name: isContents(path) ? undefined : place.nameOf(bare) }
}

async function targetOf(from: Source, { place, path }: Side): Promise<string> {
  const bare = withoutSlashes(path)
  const found = await place.follow(bare)
  const isDirectory = from.entry.type === 'directory'
  if (found === undefined) {
    if (!isDirectory && path.endsWith('/')) throw notFound(path)
    const parent = posix.dirname(bare)
    if ((await place.follow(parent))?.entry.type !== 'directory') throw notFound(`directory ${parent}`)
    return bare
  }
  if (found.entry.type === 'directory') return from.name === undefined ? found.path : posix.join(found.path, from.name)
  if (isDirectory) throw refuse(`${path} is not a directory, and ${from.path} is one`)
  if (path.endsWith('/')) throw refuse(`${path} is not a directory`)
  return found.path
}

interface Pair {
  from: string
  to: string
  entry: Entry
}
interface Plan {
  directories: Pair[]
  files: Pair[]
  symlinks: Pair[]
  skipped: string[]
  bytes: number
}

/** All that is to be copied, before anything is written: so a directory can be copied into itself. */
async function scan(place: Place, { path, entry }: Source, to: string, signal: AbortSignal): Promise<Plan> {
  const plan: Plan = { directories: [], files: [], symlinks: [], skipped: [], bytes: 0 }
  const left: Pair[] = [{ from: path, to, entry }]
  for (let pair = left.pop(); pair !== undefined; pair = left.pop()) {
    signal.throwIfAborted()
    const { from, to: at, entry: found } = pair
    if (found.type === 'file') {
      plan.files.push(pair)
      plan.bytes += found.size
    } else if (found.type === 'symlink') plan.symlinks.push(pair)
    else if (found.type === 'other') plan.skipped.push(from)
    else {
      plan.directories.push(pair)
      for (const child of await place.list(from))
        left.push({ from: posix.join(from, child.name), to: posix.join(at, child.name), entry: child })
    }
  }
  return plan
}

/** Symlinks last: while files are written, no symlink that came along can lead them elsewhere. */
async function perform(
  source: Place,
  target: Place,
  plan: Plan,
  onStep: (step: Step) => void,
  signal: AbortSignal,
): Promise<void> {
  const made: Pair[] = []
  for (const pair of plan.directories) {
    signal.throwIfAborted()
    if ((await target.look(pair.to)) === undefined) made.push(pair)
    await target.makeDirectory(pair.to, pair.entry.mode)
  }
  let done = 0
  const count = (bytes: number) => {
    done += bytes
    onStep({ phase: 'copying', done, total: plan.bytes, unit: 'bytes' })
  }
  await inParallel(plan.files, async ({ from, to, entry }) => {
    signal.throwIfAborted()
    await target.write(to, counted(await source.read(from), count, signal), entry.mode)
  })
  for (const { to, entry } of plan.symlinks) {
    signal.throwIfAborted()
    await target.symlink(entry.target, to)
  }
  for (const { to, entry } of made.toReversed()) await target.setMode(to, entry.mode)
}

function counted(content: Content, count: (bytes: number) => void, signal: AbortSignal): Content {
  if (content instanceof Uint8Array) {
    count(content.byteLength)
    return content
  }
  return (async function* () {
    for await (const piece of content) {
      signal.throwIfAborted()
      yield piece
      count(piece.byteLength)
    }
  })()
}

/** Ends with the first failure, once what was under way has ended. */
async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = items.values()
  let failed = false
  const worker = async () => {
    for (const item of left) {
      if (failed) return
      try {
        await work(item)
      } catch (thrown) {
        failed = true
        throw thrown
      }
    }
  }
  const results = await Promise.allSettled(Array.from({ length: PARALLEL }, worker))
  for (const result of results) if (result.status === 'rejected') throw result.reason
}
