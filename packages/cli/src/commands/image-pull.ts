import { REFERENCE } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { imageReference } from '../image-reference.ts'
import { print, printJson } from '../output.ts'
import { ProgressBar } from '../progress.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [REFERENCE],
  flags: SERVER_FLAGS,
  async run({ arguments: { ref }, flags }) {
    using bar = new ProgressBar(`pull ${ref}`, flags.json)
    const image = await serverOf(flags).images.pull(imageReference(ref), { onProgress: bar.step })
    bar.done()
    if (flags.json) printJson(image)
    else print(image.id)
    return 0
  },
})
