import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { type Limits, openControl } from '@icebox/control'
import { IceboxError, isError, type Node } from '@icebox/model'
import {
  cacheDirectory,
  dockerConfigFile,
  ensureRuntime,
  gvisorDriver,
  openImageStore,
  openLocalNode,
  type Report,
  type SourceSettings,
} from '@icebox/node'
import { checkAddress, isBeyondLoopback, openServer, type ServerOptions } from '@icebox/server'
import { Ballast, makeRoomToStart, openDataDirectory, openKeyring, openSnapshots, withinSpace } from '@icebox/snapshot'
import { openSqliteStore, removeDatabase } from '@icebox/store'
import { openLog } from './log.ts'
import { beginBaseTemplate } from './up/base-template.ts'
import { markTold, recordUnseenDeath, reportCrashes, untoldDeaths } from './up/deaths.ts'
import { VERSION } from './version.ts'

/** Containers kept created ahead for each of the last used kinds of machine, unless the caller says otherwise. */
const SLOTS = 2
/** Longest that adopting and recovering at the start may take before requests are served, milliseconds. */
const START_DEADLINE = 300_000
/** Longest that letting go after a failed start may take, milliseconds. */
const CLOSE_DEADLINE = 60_000

/** How a server is called: where it listens, and as what; as in ServerOptions. */
export type Reach = Pick<ServerOptions, 'listen' | 'domains' | 'allowedHosts' | 'corsOrigins' | 'requireTokens' | 'tls'>

/** What images may be made of besides registries of the Internet: as in SourceSettings. */
export type Sources = Required<Pick<SourceSettings, 'directories' | 'registries' | 'credentials'>>

export interface Composition {
  dataDirectory: string
  reach: Reach
  /** Set-up steps that were missing, as they run. */
  report: Report
  slots?: number
  /** Default: nothing. */
  sources?: Sources
  /** Default: those of `Limits`. */
  limits?: Limits
  /** Whether to remove what no record claims, instead of refusing to start beside it. */
  forget?: boolean
  /** Whether to make the template `base` in the background, where there is none. */
  base?: boolean
  /** A client asked for the end, in this way. */
  onShutdown: (mode: 'pause' | 'keep' | 'kill') => void
}

export interface RunningIcebox {
  url: string
  /** The same for programs on this machine: without TLS. */
  localUrl: string
  keyFile: string
  driver: string
  /** The machine itself, for those who measure it. */
  node: Node
  /** Pauses, keeps or kills the sandboxes, then lets go of everything. */
  close(mode: 'pause' | 'keep' | 'kill', signal: AbortSignal): Promise<void>
}

/**
 * The whole of Icebox on one machine in this process: data directory, store, node, control plane, server. What a crash left
 * is settled before it listens. Errors: `Conflict` (data directory or port in use), `Unavailable` (something is missing).
 */
export async function openIcebox({ reach, ...options }: Composition, signal: AbortSignal): Promise<RunningIcebox> {
  // What passes through to clients lies in buffers outside of V8's heap. Unless they count in one limit with it, V8 marks the whole
  // heap for every few megabytes of them, which costs more than passing them on; those that are young go with young objects anyway.
  setFlagsFromString('--external-memory-accounted-in-global-limit')
  // And unless that limit leaves room for what is on its way: live objects may be tripled before all are marked again.
  setFlagsFromString('--heap-growing-percent=200')
  setFlagsFromString('--external-memory-max-growing-factor=3')
  const programs = await ensureRuntime(options.report, signal)
  await checkAddress(reach.listen).catch(async (thrown: unknown) => {
    // When the port is that of the server which has this data directory, that says more.
    if (existsSync(join(options.dataDirectory, 'server.json')))
      await (await openDataDirectory(options.dataDirectory)).close()
    throw thrown
  })
  makeRoomToStart(options.dataDirectory)
  const data = await openDataDirectory(options.dataDirectory)
  reportCrashes(data.path)
  const undo: (() => Promise<unknown>)[] = [() => data.close()]
  try {
    const key = await data.readOrCreateKey()
    const keyring = await openKeyring(data.path)
    const { write, writeLine, close: closeLog } = await openLog(join(data.path, 'server.log'))
    undo.unshift(closeLog)
    const unseen = await recordUnseenDeath(data.path)
    if (unseen !== undefined) write('error', 'server.died', { ...unseen })
    const isNew = !existsSync(data.database)
    let refused = false
    const ballast = new Ballast(data.path, data.database)
    undo.unshift(async () => ballast.close())
    const store = await openSqliteStore(data.database, { makeRoom: () => ballast.release() })
    undo.unshift(async () => {
      await store.close()
      // Empty, and in the way of whoever brings the lost one back.
      if (isNew && refused) await removeDatabase(data.database)
    })
    const images = openImageStore({
      directory: data.images,
      cacheDirectory: cacheDirectory(),
      sources: {
        ...options.sources,
        secret: [data.path, data.run, ...(reach.tls === undefined ? [] : [reach.tls.key]), dockerConfigFile()],
        onUnreachable: (registry, { message }) => write('warn', 'registry.unreachable', { registry, error: message }),
      },
    })
    const snapshots = openSnapshots({ directory: data.snapshots, tmp: data.tmp, keyring })
    const driver = gvisorDriver({
      runsc: programs.runsc,
      guest: programs.guest,
      dataDirectory: data.path,
      runDirectory: data.run,
      imagePath: (digest) => images.path(digest, 'erofs'),
    })
    const starting = AbortSignal.any([signal, AbortSignal.timeout(START_DEADLINE)])
    const probe = await driver.probe(starting)
    if (!probe.usable) throw new IceboxError('Unavailable', `sandboxes cannot run here: ${probe.reason}`)
    const node = await openLocalNode(
      {
        driver,
        images,
        snapshots,
        bootFile: join(data.path, 'boot'),
        tmp: data.tmp,
        agentVersion: VERSION,
        slots: options.slots ?? SLOTS,
        onTrouble: (what, error) => write('error', 'node.trouble', { what, error: error.message }),
      },
      starting,
    )
    undo.unshift(() => node.close())
    const opening = openControl({
      store,
      node,
      log: write,
      installationKey: key,
      tokenSecret: await data.readOrCreateTokenSecret(),
      ...(options.limits === undefined ? {} : { limits: options.limits }),
      forget: options.forget ?? false,
      directory: data,
      deaths: await untoldDeaths(data.path),
    })
    const control = await opening.catch((thrown: unknown) => {
      refused = isError(thrown, 'InvalidState')
      throw thrown
    })
    await markTold(data.path)
    undo.unshift(() => control.close('keep', AbortSignal.timeout(CLOSE_DEADLINE)))
    if (options.base) await beginBaseTemplate(control, starting)
    const server = await openServer({
      control,
      ...reach,
      info: { version: VERSION, driver: driver.name, dataDirectory: data.path, pid: process.pid },
      log: { write: writeLine },
      temporaryDirectory: data.tmp,
      withinSpace,
      onShutdown: options.onShutdown,
    })
    if (reach.tls === undefined && isBeyondLoopback(reach.listen.host))
      write('warn', 'server.unencrypted', {
        listen: reach.listen.host,
        message:
          'keys and data cross the network as plain text: give --tls-cert and --tls-key, or put a proxy with TLS before it',
      })
    write('info', 'server.started', { url: server.url, driver: driver.name, pid: process.pid })
    return {
      url: server.url,
      localUrl: server.localUrl,
      keyFile: join(data.path, 'key'),
      driver: `${driver.name} ${probe.version}`,
      node,
      async close(mode, until) {
        await server.close(until)
        await control.close(mode, until)
        write('info', 'server.stopped', { mode })
        await closeLog()
        ballast.close()
        await data.close()
      },
    }
  } catch (error) {
    for (const step of undo) await step().catch(() => undefined)
    throw error
  }
}
