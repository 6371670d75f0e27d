import { setTimeout as sleep } from 'node:timers/promises'
import type { Guest } from '@icebox/model'
import type { App } from '../../context.ts'
import { DEADLINE, within } from '../../deadline.ts'
import { type Sample, sample, samples, usedPercent } from '../../processor.ts'
import { pump, sendHead } from '../../stream.ts'
import type { Execd } from './facade.ts'

const MIB = 1_048_576
/** Milliseconds over which the use of the CPU is measured when it is asked for once. */
const WINDOW = 100
const WATCH_EVERY = 1_000
/** Milliseconds that a sandbox on its way is waited for: who asks whether it is there asks again. */
const PING = 5_000

/** Between two samples. */
function wire(earlier: Sample, later: Sample) {
  const { metrics } = later
  return {
    cpu_count: metrics.cpuCount,
    cpu_used_pct: usedPercent(earlier, later),
    mem_total_mib: Math.round((metrics.memoryTotalBytes / MIB) * 100) / 100,
    mem_used_mib: Math.round((metrics.memoryUsedBytes / MIB) * 100) / 100,
    timestamp: Date.now(),
  }
}

async function* watch(guest: Guest, signal: AbortSignal): AsyncGenerator<string> {
  let last = await sample(guest, signal)
  let pause = WINDOW
  for (;;) {
    await sleep(pause, undefined, { signal })
    pause = WATCH_EVERY
    const next = await sample(guest, signal)
    yield `data: ${JSON.stringify(wire(last, next))}\n\n`
    last = next
  }
}

/** What a sandbox uses, as it sees it itself. */
export async function metricsRoutes(app: App, execd: Execd): Promise<void> {
  app.get('/ping', async (request, reply) => {
    await within(PING, (signal) => execd.guest(request, signal), reply)
    return reply.send()
  })

  app.get('/metrics', async (request, reply) =>
    within(
      DEADLINE.read,
      async (signal) => {
        const guest = await execd.guest(request, signal)
        return wire(...(await samples(guest, WINDOW, signal)))
      },
      reply,
    ),
  )

  app.get('/metrics/watch', async (request, reply) => {
    const { started: guest, signal } = await execd.streams.open(reply, DEADLINE.read, (opened) =>
      execd.guest(request, opened),
    )
    sendHead(reply, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' })
    try {
      await pump(reply, watch(guest, signal), signal)
    } catch {
      // Its format has no words for why: the end says that no more comes.
    }
    reply.raw.end()
  })
}
