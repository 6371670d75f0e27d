import { setTimeout as sleep } from 'node:timers/promises'
import { type Icebox, isIceboxError, type Sandbox, type SandboxStats } from '@icebox/sdk'
import { SANDBOX } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { type Column, printJson, printStyled, size, table } from '../output.ts'
import { serverOf } from '../server.ts'

const EVERY_MS = 1000

interface Row extends SandboxStats {
  name: string
  /** Cores in use since the row before; undefined on the first. */
  cores: number | undefined
}

const COLUMNS: Column<Row>[] = [
  { title: 'ID', cell: ({ id }) => id },
  { title: 'NAME', cell: ({ name }) => name || '-' },
  { title: 'CPU', cell: ({ cores }) => (cores === undefined ? '-' : `${(cores * 100).toFixed(1)}%`) },
  { title: 'CPU TIME', cell: ({ cpuSeconds }) => `${cpuSeconds.toFixed(1)}s` },
  { title: 'MEMORY', cell: ({ memoryBytes }) => size(memoryBytes) },
  { title: 'DISK', cell: ({ diskBytes }) => size(diskBytes) },
  { title: 'PROCESSES', cell: ({ processes }) => String(processes) },
]

/** One that was paused or deleted meanwhile has no numbers any more. */
async function measure(
  sandboxes: Sandbox[],
  before: ReadonlyMap<string, SandboxStats>,
  elapsedMs: number,
): Promise<Row[]> {
  const rows = await Promise.all(
    sandboxes.map(async (sandbox): Promise<Row[]> => {
      try {
        const stats = await sandbox.stats()
        const last = before.get(stats.id)
        const cores =
          last === undefined ? undefined : Math.max(0, stats.cpuSeconds - last.cpuSeconds) / (elapsedMs / 1000)
        return [{ ...stats, name: sandbox.resource.name ?? '', cores }]
      } catch (thrown) {
        if (isIceboxError(thrown, 'NotFound', 'InvalidState', 'Conflict')) return []
        throw thrown
      }
    }),
  )
  return rows.flat()
}

const running = async (server: Icebox): Promise<Sandbox[]> => server.sandboxes.list({ state: ['Running'] })

export const command = define({
  arguments: [{ ...SANDBOX, optional: true, summary: `${SANDBOX.summary} Default: all that run.` }],
  flags: SERVER_FLAGS,
  async run({ arguments: { sandbox: ref }, flags }) {
    const server = serverOf(flags)
    const one = ref === undefined ? undefined : await server.sandboxes.connect(ref)
    // Asked for by name, one that has no numbers is an error and not an empty table.
    const first = one === undefined ? undefined : [await one.stats()]
    if (flags.json) {
      printJson(
        first ?? (await measure(await running(server), new Map(), 1)).map(({ name: _, cores: __, ...stats }) => stats),
      )
      return 0
    }
    let before = new Map<string, SandboxStats>()
    let at = performance.now()
    for (;;) {
      const rows = await measure(one === undefined ? await running(server) : [one], before, performance.now() - at)
      at = performance.now()
      before = new Map(rows.map((row) => [row.id, row]))
      const text = table(rows, COLUMNS)
      if (!process.stdout.isTTY) {
        printStyled(text)
        return 0
      }
      // From the top left, each line cleared to its end, and then what is left below.
      printStyled(`\u001b[H${text.replaceAll('\n', '\u001b[K\n')}\u001b[K\u001b[J`)
      await sleep(EVERY_MS)
    }
  },
})
