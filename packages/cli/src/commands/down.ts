import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Icebox, isIceboxError } from '@icebox/sdk'
import { defaultDataDirectory } from '@icebox/snapshot'
import { define, SERVER_FLAGS, UsageError } from '../command.ts'
import { Refusal } from '../failure.ts'
import { note, print, printJson } from '../output.ts'
import { parentOf, startTime } from '../process.ts'
import { ProgressBar } from '../progress.ts'
import { serverOf } from '../server.ts'
import { ServerLog } from '../server-log.ts'
import { type Supervisor, supervisorOf } from '../up/supervision.ts'

/** Longer than the server takes to save all sandboxes, or to leave them, milliseconds. */
const DEADLINE_MS = 960_000
const EVERY_MS = 50
/** How long a supervisor may take to see that its server has ended, milliseconds. */
const PATIENCE_MS = 5000

/** Whether the server still runs: by its process when it is one of this machine, else by its address. */
async function liveness(
  { pid, dataDirectory }: { pid: number; dataDirectory: string },
  server: Icebox,
): Promise<() => Promise<boolean>> {
  const lock = await readFile(join(dataDirectory, 'lock'), 'utf8').catch(() => '')
  const started = await startTime(pid)
  if (lock.trim() === String(pid) && started !== undefined) return async () => (await startTime(pid)) === started
  return async () =>
    server.health({ requestTimeoutMs: 5000 }).then(
      () => true,
      (thrown: unknown) => !isIceboxError(thrown, 'Unavailable'),
    )
}

/** The supervisor of this server, when it is one of this machine. */
async function localSupervisor(of: { pid: number; dataDirectory: string }): Promise<Supervisor | undefined> {
  const supervisor = await supervisorOf(of.dataDirectory)
  return supervisor !== undefined && (await parentOf(of.pid)) === supervisor.pid ? supervisor : undefined
}

/** Waits until a supervisor has ended, and tells it to when it does not by itself. */
async function endedOf(supervisor: Supervisor | undefined): Promise<void> {
  const began = performance.now()
  let told = false
  while (supervisor !== undefined && (await supervisor.runs())) {
    const waited = performance.now() - began
    if (waited > DEADLINE_MS)
      throw new Refusal(
        'DeadlineExceeded',
        `process ${supervisor.pid}, which restarts the server, has not ended`,
        'Kill it.',
      )
    if (!told && waited > PATIENCE_MS) {
      process.kill(supervisor.pid, 'SIGTERM')
      told = true
    }
    await sleep(EVERY_MS)
  }
}

/** Has a supervisor whose server has died give up; false when there is none. */
async function endRestarts(dataDirectory: string): Promise<boolean> {
  const supervisor = await supervisorOf(dataDirectory)
  if (supervisor === undefined) return false
  process.kill(supervisor.pid, 'SIGTERM')
  await endedOf(supervisor)
  return true
}

const directoryOf = ({ data }: { data: string | undefined }): string =>
  data === undefined ? defaultDataDirectory() : resolve(data)

export const command = define({
  arguments: [],
  flags: {
    keep: { summary: 'Let the sandboxes run on; the next `up` takes them over.' },
    kill: { summary: 'Delete all sandboxes.' },
    ...SERVER_FLAGS,
  },
  async run({ flags }) {
    if (flags.keep && flags.kill) throw new UsageError('--keep and --kill exclude each other')
    const mode = flags.keep ? 'keep' : flags.kill ? 'kill' : 'pause'
    const server = serverOf(flags)
    const info = await server.info().catch(async (thrown: unknown) => {
      if (flags.url === undefined && isIceboxError(thrown, 'Unavailable') && (await endRestarts(directoryOf(flags))))
        return undefined
      throw thrown
    })
    if (info === undefined) {
      if (flags.json) printJson({ mode, notPaused: [], notDeleted: [] })
      else print('the server had died, and is not started again')
      note('sandboxes that ran run on; the next `icebox up` takes them over')
      // Neither paused nor deleted, as was asked.
      return mode === 'keep' ? 0 : 1
    }
    const { pid, dataDirectory } = info
    if (pid === undefined || dataDirectory === undefined)
      throw new Refusal(
        'Forbidden',
        'the key of a project does not end the server',
        'Use the key of the installation: the file `key` in its data directory.',
      )
    const supervisor = await localSupervisor({ pid, dataDirectory })
    const runs = await liveness({ pid, dataDirectory }, server)
    const log = await ServerLog.fromNow(join(dataDirectory, 'server.log'))
    using bar = new ProgressBar('icebox down', flags.json)
    bar.step({ phase: { keep: 'ending', kill: 'deleting all sandboxes', pause: 'pausing all sandboxes' }[mode] })
    await server.shutdown(mode)
    const deadline = performance.now() + DEADLINE_MS
    while (await runs()) {
      if (performance.now() > deadline)
        throw new Refusal('DeadlineExceeded', 'the server has not ended in 16 minutes', `See ${log.path}.`)
      await sleep(EVERY_MS)
    }
    // It ends with its server, unless that died before it could say that it was told to end.
    await endedOf(supervisor)
    bar.done()
    const lines = await log.more()
    const failures = (event: string) =>
      lines.filter((line) => line.event === event).map(({ sandbox, error }) => ({ id: sandbox, error }))
    const [notPaused, notDeleted] = [failures('shutdown.pause.failed'), failures('shutdown.delete.failed')]
    const failed = notPaused.length + notDeleted.length > 0
    if (flags.json) printJson({ ...info, mode, notPaused, notDeleted })
    else if (!failed) print('the server has ended')
    for (const { id, error } of notPaused) note(`sandbox ${id} could not be paused and still runs: ${error}`)
    for (const { id, error } of notDeleted) note(`sandbox ${id} could not be deleted: ${error}`)
    return failed ? 1 : 0
  },
})
