import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Icebox, isIceboxError } from '@icebox/sdk'
import { define, SERVER_FLAGS, UsageError } from '../command.ts'
import { Refusal } from '../failure.ts'
import { note, print, printJson } from '../output.ts'
import { startTime } from '../process.ts'
import { ProgressBar } from '../progress.ts'
import { serverOf } from '../server.ts'
import { ServerLog } from '../server-log.ts'

/** Longest that saving all sandboxes may take, milliseconds. */
const DEADLINE_MS = 900_000
const EVERY_MS = 50

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
    const info = await server.info()
    const { pid, dataDirectory } = info
    if (pid === undefined || dataDirectory === undefined)
      throw new Refusal(
        'Forbidden',
        'the key of a project does not end the server',
        'Use the key of the installation: the file `key` in its data directory.',
      )
    const runs = await liveness({ pid, dataDirectory }, server)
    const log = await ServerLog.fromNow(join(dataDirectory, 'server.log'))
    using bar = new ProgressBar('icebox down', flags.json)
    bar.step({ phase: { keep: 'ending', kill: 'deleting all sandboxes', pause: 'pausing all sandboxes' }[mode] })
    await server.shutdown(mode)
    const deadline = performance.now() + DEADLINE_MS
    while (await runs()) {
      if (performance.now() > deadline)
        throw new Refusal('DeadlineExceeded', 'the server has not ended in 15 minutes', `See ${log.path}.`)
      await sleep(EVERY_MS)
    }
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
