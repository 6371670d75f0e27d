import { IMAGE } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { imageName } from '../image-reference.ts'
import { print, printJson } from '../output.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [IMAGE],
  flags: SERVER_FLAGS,
  async run({ arguments: { image: ref }, flags }) {
    const { images } = serverOf(flags)
    // The id first: a name says nothing any more once it is gone.
    const { id } = await images.get(imageName(ref))
    await images.delete(id)
    if (flags.json) printJson({ id })
    else print(id)
    return 0
  },
})
