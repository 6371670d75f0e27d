import { randomUUID } from 'node:crypto'
import { posix } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { Code, ConnectError } from '@connectrpc/connect'
import { Budget, Budgets, type FileEvent, ITEM_BYTES, isError, type Reservation } from '@icebox/model'
import { accessOf, bounded, type Call, guestPath } from './call.ts'
import { entryOf, METADATA_PREFIX } from './entry.ts'
import { rpcError } from './errors.ts'
import { EventType, type FilesystemEventSchema } from './generated/filesystem_pb.js'

type Change = MessageInitShape<typeof FilesystemEventSchema>

/** Changes that wait for a client to ask for them; beyond, it learns that some are missing. */
const MAX_WAITING = 4096

/** Bytes of changes that wait, of one run and of all. */
const EACH = 8_388_608
const IN_ALL = 67_108_864

/** Watchers of one run: each keeps what waits, and not every client removes its own. */
const MOST = 128

const TYPES: Readonly<Record<Exclude<FileEvent['type'], 'overflow'>, EventType>> = {
  create: EventType.CREATE,
  write: EventType.WRITE,
  remove: EventType.REMOVE,
  rename: EventType.RENAME,
  chmod: EventType.CHMOD,
}

export interface WatchRequest {
  path: string
  recursive: boolean
  includeEntry: boolean
}

const lost = () => new ConnectError('changes were lost: there were more than anybody took', Code.DataLoss)

/** Resolves once watching, to what changes from now on until the signal fires. */
export async function watch(call: Call, request: WatchRequest, signal: AbortSignal): Promise<AsyncIterable<Change>> {
  const access = accessOf(call)
  const starting = bounded(signal, 'short')
  const { type, path, leadsTo } = await call.guest.stat(
    guestPath(request.path, call),
    { ...access, xattrs: METADATA_PREFIX },
    starting,
  )
  if ((leadsTo ?? { type }).type !== 'directory')
    throw new ConnectError(`path ${path} not a directory`, Code.InvalidArgument)
  const events = await call.guest.watch(path, { ...access, recursive: request.recursive }, signal)
  return changes(call, path, request, events, signal)
}

async function* changes(
  { guest, ...call }: Call,
  directory: string,
  { includeEntry }: WatchRequest,
  events: AsyncIterable<FileEvent>,
  signal: AbortSignal,
): AsyncGenerator<Change, void, void> {
  for await (const each of events) {
    if (each.type === 'overflow') throw lost()
    const change = { name: posix.relative(directory, each.path) || '.', type: TYPES[each.type] }
    if (!includeEntry || each.type === 'remove' || each.type === 'rename') {
      yield change
      continue
    }
    const more = { ...accessOf({ guest, ...call }), xattrs: METADATA_PREFIX }
    const info = await guest.stat(each.path, more, bounded(signal, 'short')).catch((thrown: unknown) => {
      if (isError(thrown, 'NotFound')) return undefined
      throw thrown
    })
    yield info === undefined ? change : { ...change, entry: entryOf(info) }
  }
}

/** Whether so much more can be held; if so, it is. */
function holds(held: Reservation, bytes: number): boolean {
  try {
    held.resize(held.bytes + bytes)
    return true
  } catch (thrown) {
    if (isError(thrown, 'TooManyRequests')) return false
    throw thrown
  }
}

/** As many as a change takes at most: its texts twice. */
function bytesOf({ name = '', entry }: Change): number {
  if (entry === undefined) return ITEM_BYTES + 2 * name.length
  const { path = '', symlinkTarget = '', metadata = {} } = entry
  const texts = [name, path, path, symlinkTarget, ...Object.entries(metadata).flat()]
  return 4 * ITEM_BYTES + texts.reduce((bytes, text) => bytes + ITEM_BYTES / 4 + 2 * text.length, 0)
}

interface Watcher {
  waiting: Change[]
  /** What those that wait take. */
  held: Reservation
  failure: ConnectError | undefined
  stop: AbortController
}

function drop(watcher: Watcher): void {
  watcher.waiting = []
  watcher.held.resize(ITEM_BYTES)
}

/** Watches that collect what changes until it is asked for. They live until they are removed, or as long as their run. */
export class Watchers {
  readonly #runs = new Map<string, Map<string, Watcher>>()
  readonly #budgets = new Budgets(
    (run) => `changes of run ${run} that wait to be asked for`,
    EACH,
    new Budget('changes of every sandbox that wait to be asked for', IN_ALL),
  )

  async create(call: Call, request: WatchRequest, signal: AbortSignal): Promise<string> {
    if ((this.#runs.get(call.execution)?.size ?? 0) >= MOST)
      throw new ConnectError(`the sandbox has ${MOST} watchers: remove one first`, Code.ResourceExhausted)
    const stop = new AbortController()
    const abandon = () => stop.abort(signal.reason)
    signal.addEventListener('abort', abandon, { once: true })
    const source = await watch(call, request, stop.signal).finally(() => signal.removeEventListener('abort', abandon))
    const id = `w${randomUUID()}`
    const held = this.#budgets.of(call.execution).reserve(ITEM_BYTES)
    const watcher: Watcher = { waiting: [], held, failure: undefined, stop }
    const run = this.#runs.get(call.execution) ?? new Map<string, Watcher>()
    this.#runs.set(call.execution, run.set(id, watcher))
    void this.#collect(watcher, source).finally(() => {
      // What it has collected can still be had, unless its run is over.
      if (watcher.failure === undefined) this.#forget(call.execution, id)
    })
    return id
  }

  /** What has changed since the last time. */
  take(execution: string, id: string): Change[] {
    const watcher = this.#find(execution, id)
    const { failure } = watcher
    if (failure === undefined) {
      watcher.held.resize(ITEM_BYTES)
      return watcher.waiting.splice(0)
    }
    this.remove(execution, id)
    throw failure
  }

  remove(execution: string, id: string): void {
    this.#find(execution, id).stop.abort()
    this.#forget(execution, id)
  }

  #find(execution: string, id: string): Watcher {
    const watcher = this.#runs.get(execution)?.get(id)
    if (watcher === undefined) throw new ConnectError(`watcher with id ${id} not found`, Code.NotFound)
    return watcher
  }

  #forget(execution: string, id: string): void {
    const run = this.#runs.get(execution)
    run?.get(id)?.held.release()
    run?.delete(id)
    if (run?.size === 0) this.#runs.delete(execution)
  }

  async #collect(watcher: Watcher, source: AsyncIterable<Change>): Promise<void> {
    try {
      for await (const change of source) {
        if (watcher.waiting.length >= MAX_WAITING || !holds(watcher.held, bytesOf(change))) {
          // At once: others would be refused for what this one no longer needs.
          drop(watcher)
          throw lost()
        }
        watcher.waiting.push(change)
      }
    } catch (thrown) {
      // The end of the link is the end of the run: nobody asks by this name again.
      if (isError(thrown, 'GuestFailed')) return
      drop(watcher)
      watcher.failure = rpcError(thrown)
      watcher.stop.abort()
    }
  }
}
