import { Icebox } from '@icebox/sdk'
import { atMost, result, timed } from '../measure.ts'
import type { Scenario } from '../scenario.ts'

const PUBLIC = 'everybodys'
/** Creates that the flood has under way or waiting at any time. */
const FLOOD = 100

export const fair: Scenario = {
  name: 'fair',
  summary: "one project's create while another project floods the server with creates; floor: the same alone",
  async run(lab, effort, signal) {
    const { icebox, machine } = await lab.stage()
    await icebox.templates.build({ name: PUBLIC, image: machine.imageDigest, size: machine.size, public: true, signal })
    const clientOf = async (project: string) => {
      const { key } = await icebox.keys.create({ project })
      return new Icebox({ url: icebox.url, apiKey: key })
    }
    const [honest, flooding] = [await clientOf('honest'), await clientOf('flooding')]
    const once = () =>
      timed(async () => {
        await (await honest.sandboxes.create({ template: PUBLIC })).delete()
      })
    const rounds = async () => {
      const times: number[] = []
      for (let round = 0; round < effort.rounds.short; round++) {
        const sandbox = honest.sandboxes.create({ template: PUBLIC })
        times.push(await timed(() => sandbox))
        await (await sandbox).delete()
      }
      return times
    }
    await once()
    const floor = await rounds()
    const stop = new AbortController()
    const flood = Array.from({ length: FLOOD }, async () => {
      while (!stop.signal.aborted)
        await flooding.sandboxes.create({ template: PUBLIC }).then(
          (sandbox) => sandbox.delete(),
          () => undefined,
        )
    })
    await once()
    const ours = await rounds()
    stop.abort()
    await Promise.all(flood)
    await icebox.templates.delete(PUBLIC)
    return [result('fair', 'ms', { ours, floor }, atMost(3))]
  },
}
