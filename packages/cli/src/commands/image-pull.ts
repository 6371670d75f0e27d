import { REFERENCE } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { localImage, sendImage } from '../local-image.ts'
import { print, printJson } from '../output.ts'
import { ProgressBar } from '../progress.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [REFERENCE],
  flags: SERVER_FLAGS,
  async run({ arguments: { ref }, flags }) {
    const server = serverOf(flags)
    const local = await localImage(ref)
    using bar = new ProgressBar(`${local === undefined ? 'pull' : 'send'} ${ref}`, flags.json)
    const image =
      local === undefined
        ? await server.images.pull(ref, { onProgress: bar.step })
        : await sendImage(server, local, bar.step)
    bar.done()
    if (flags.json) printJson(image)
    else print(image.id)
    return 0
  },
})
