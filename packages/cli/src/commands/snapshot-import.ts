import { open } from 'node:fs/promises'
import { define, SERVER_FLAGS } from '../command.ts'
import { checkInput } from '../local-file.ts'
import { print, printJson } from '../output.ts'
import { ProgressBar } from '../progress.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [{ name: 'file', summary: 'What `snapshot export` wrote.' }],
  flags: {
    name: { summary: 'Name to call it by.', value: 'N' },
    ...SERVER_FLAGS,
  },
  async run({ arguments: { file }, flags }) {
    if (flags.name !== undefined) (await import('../limits.ts')).displayName('--name', flags.name)
    await checkInput(file)
    await using handle = await open(file)
    const { size: total } = await handle.stat()
    using bar = new ProgressBar(`import ${file}`, flags.json)
    async function* content(): AsyncGenerator<Uint8Array> {
      let done = 0
      for await (const piece of handle.createReadStream({ autoClose: false })) {
        yield piece
        done += piece.byteLength
        bar.step({ phase: 'sending', done, total, unit: 'bytes' })
      }
    }
    const snapshot = await serverOf(flags).snapshots.import(content(), { name: flags.name })
    bar.done()
    if (flags.json) printJson(snapshot)
    else print(snapshot.id)
    return 0
  },
})
