import { randomBytes } from 'node:crypto'
import { open, rename, rm, stat } from 'node:fs/promises'
import { SNAPSHOT } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { interruptible } from '../interrupt.ts'
import { checkOutput } from '../local-file.ts'
import { print, printJson, size } from '../output.ts'
import { ProgressBar } from '../progress.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [SNAPSHOT, { name: 'file', summary: 'Where to write it; replaced when it is there.' }],
  flags: SERVER_FLAGS,
  async run({ arguments: { snapshot: ref, file }, flags }) {
    await checkOutput(file)
    const { snapshots } = serverOf(flags)
    const { id } = await snapshots.get(ref)
    using bar = new ProgressBar(`export ${id}`, flags.json)
    // Under its name only when it is whole.
    const part = `${file}.${randomBytes(4).toString('hex')}.part`
    const handle = await open(part, 'wx', 0o600)
    try {
      await interruptible(async (signal) => {
        let done = 0
        for await (const piece of await snapshots.export(id, { signal })) {
          await handle.writeFile(piece)
          done += piece.byteLength
          bar.step({ phase: 'writing', done, unit: 'bytes' })
        }
      })
      await handle.sync()
      await handle.close()
      await rename(part, file)
    } catch (thrown) {
      await handle.close().catch(() => {})
      await rm(part, { force: true })
      throw thrown
    }
    bar.done()
    const { size: sizeBytes } = await stat(file)
    if (flags.json) printJson({ id, file, sizeBytes })
    else print(`${file}  ${size(sizeBytes)}`)
    return 0
  },
})
