import { REFERENCE } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { imageReference, withImage } from '../image-reference.ts'
import { print, printJson } from '../output.ts'
import { ProgressBar } from '../progress.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [REFERENCE],
  flags: SERVER_FLAGS,
  async run({ arguments: { ref }, flags }) {
    using bar = new ProgressBar(`pull ${ref}`, flags.json)
    const reference = imageReference(ref)
    const pulling = serverOf(flags).images.pull(reference, { onProgress: bar.step })
    const image = await withImage(reference, pulling)
    bar.done()
    if (flags.json) printJson(image)
    else print(image.id)
    return 0
  },
})
