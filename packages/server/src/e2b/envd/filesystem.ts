import { Code, ConnectError, type ServiceImpl } from '@connectrpc/connect'
import { type FileInfo, isError } from '@icebox/model'
import { KEEP_ALIVE, withKeepAlive } from '../../keep-alive.ts'
import { accessOf, bounded, type Call, callOf, guestPath } from './call.ts'
import { entryOf, METADATA_PREFIX } from './entry.ts'
import type { Filesystem } from './generated/filesystem_pb.js'
import { keepAliveInterval } from './keep-alive.ts'
import { streaming, unary } from './translate.ts'
import { Watchers, watch } from './watchers.ts'

const more = (call: Call) => ({ ...accessOf(call), xattrs: METADATA_PREFIX })

/** The order of a walk: a directory, then what is in it, then what comes after it by name. */
const walked = (entries: FileInfo[]): FileInfo[] =>
  entries
    .map((entry) => ({ entry, key: entry.path.replaceAll('/', '\0') }))
    .sort((a, b) => (a.key < b.key ? -1 : 1))
    .map(({ entry }) => entry)

/** envd's service of files, but for their contents. */
export function filesystemService(): ServiceImpl<typeof Filesystem> {
  const watchers = new Watchers()

  return {
    stat: unary(async ({ path }, context) => {
      const call = callOf(context)
      const info = await call.guest.stat(guestPath(path, call), more(call), bounded(context.signal, 'short'))
      return { entry: entryOf(info) }
    }),

    listDir: unary(async ({ path, depth }, context) => {
      const call = callOf(context)
      const options = { ...more(call), depth: depth || 1 }
      const entries = await call.guest.list(guestPath(path, call), options, bounded(context.signal, 'short'))
      return { entries: walked(entries).map(entryOf) }
    }),

    makeDir: unary(async ({ path }, context) => {
      const call = callOf(context)
      const signal = bounded(context.signal, 'short')
      const directory = guestPath(path, call)
      const made = await call.guest.makeDirectory(directory, accessOf(call), signal).catch((thrown: unknown) => {
        if (!isError(thrown, 'AlreadyExists')) throw thrown
        throw new ConnectError(`path already exists but it is not a directory: ${path}`, Code.InvalidArgument)
      })
      if (!made) throw new ConnectError(`directory already exists: ${path}`, Code.AlreadyExists)
      return { entry: entryOf(await call.guest.stat(directory, more(call), signal)) }
    }),

    move: unary(async ({ source, destination }, context) => {
      const call = callOf(context)
      const [from, to] = [guestPath(source, call), guestPath(destination, call)]
      return { entry: entryOf(await call.guest.move(from, to, more(call), bounded(context.signal, 'long'))) }
    }),

    remove: unary(async ({ path }, context) => {
      const call = callOf(context)
      const signal = bounded(context.signal, 'long')
      await call.guest.remove(guestPath(path, call), accessOf(call), signal).catch((thrown: unknown) => {
        // It is gone, as was asked. (An unknown user has no errno.)
        if (!isError(thrown, 'NotFound') || thrown.details.errno === undefined) throw thrown
      })
      return {}
    }),

    watchDir: streaming(async function* (request, context) {
      // The guest watches as long as this lasts, which a client that fails to read must not outlive.
      const { signal } = context
      const changes = await watch(callOf(context), request, signal)
      yield { event: { case: 'start' as const, value: {} } }
      for await (const change of withKeepAlive(changes, keepAliveInterval(context.requestHeader), signal)) {
        if (change === KEEP_ALIVE) yield { event: { case: 'keepalive' as const, value: {} } }
        else yield { event: { case: 'filesystem' as const, value: change } }
      }
    }),

    createWatcher: unary(async (request, context) => ({
      watcherId: await watchers.create(callOf(context), request, bounded(context.signal, 'short')),
    })),

    getWatcherEvents: unary(async ({ watcherId }, context) => ({
      events: watchers.take(callOf(context).execution, watcherId),
    })),

    removeWatcher: unary(async ({ watcherId }, context) => {
      watchers.remove(callOf(context).execution, watcherId)
      return {}
    }),
  }
}
