import { createRequire } from 'node:module'
import { join } from 'node:path'
import { runSteps, stepReport } from '@icebox/node'
import { npmClients } from '../../setup/clients.ts'
import { withSandbox } from '../lab.ts'
import { atMost, interleave, result, timed } from '../measure.ts'
import type { Scenario } from '../scenario.ts'

/** What E2B's client makes of `commands.run('true')`. */
const RUN_TRUE = ['/bin/bash', '-l', '-c', 'true']

/** What is used of E2B's client, which is not ours. */
interface Client {
  Sandbox: { create(template: string, options: ClientOptions): Promise<ClientSandbox> }
}
interface ClientOptions {
  apiKey: string
  apiUrl: string
  sandboxUrl: string
}
interface ClientSandbox {
  commands: { run(command: string): Promise<{ exitCode: number }> }
  kill(): Promise<boolean>
}

async function installed(signal: AbortSignal): Promise<Client> {
  await runSteps([npmClients.step], stepReport(process.stderr), signal)
  return createRequire(join(await npmClients.path(signal), 'node_modules', 'program.js'))('e2b')
}

async function runTrue(sandbox: ClientSandbox): Promise<void> {
  const { exitCode } = await sandbox.commands.run('true')
  if (exitCode !== 0) throw new Error(`true ended with ${exitCode} through E2B's client`)
}

export const e2b: Scenario = {
  name: 'e2b',
  summary: "E2B's unmodified client beside our own SDK",
  async run(lab, effort, signal) {
    const { icebox, apiKey, template } = await lab.stage()
    const { Sandbox } = await installed(signal)
    const options = { apiKey, apiUrl: icebox.url, sandboxUrl: icebox.url }
    const several = async (once: () => Promise<unknown>) => {
      const values: number[] = []
      for (let i = 0; i < effort.execs; i += 1) values.push(await timed(once))
      return values
    }
    /** Of a sandbox of its own, which goes afterwards. */
    const untilAnswered = async <S>(
      create: () => Promise<S>,
      run: (sandbox: S) => Promise<unknown>,
      end: (sandbox: S) => Promise<unknown>,
    ) => {
      let made: S | undefined
      try {
        return [
          await timed(async () => {
            made = await create()
            await run(made)
          }),
        ]
      } finally {
        if (made !== undefined) await end(made)
      }
    }
    const commands = await withSandbox(icebox.sandboxes.create({ template }), async (own) => {
      const theirs = await Sandbox.create(template, options)
      try {
        return await interleave(
          effort.rounds.short,
          { floor: () => several(async () => own.exec(RUN_TRUE)), ours: () => several(() => runTrue(theirs)) },
          signal,
        )
      } finally {
        await theirs.kill()
      }
    })
    const creates = await interleave(
      effort.rounds.short,
      {
        floor: () =>
          untilAnswered(
            () => icebox.sandboxes.create({ template }),
            async (sandbox) => sandbox.exec(RUN_TRUE),
            (sandbox) => sandbox.delete(),
          ),
        ours: () =>
          untilAnswered(
            () => Sandbox.create(template, options),
            (sandbox) => runTrue(sandbox),
            (sandbox) => sandbox.kill(),
          ),
      },
      signal,
    )
    return [
      result('E2B commands.run', 'ms', commands, atMost(1.5), ['floor: an exec of the same words by our own SDK']),
      result('E2B create to first command', 'ms', creates, atMost(1.3), ['floor: the same by our own SDK']),
    ]
  },
}
