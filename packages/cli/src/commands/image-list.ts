import { define, SERVER_FLAGS } from '../command.ts'
import { printJson, printStyled, table } from '../output.ts'
import { serverOf } from '../server.ts'
import { IMAGE_COLUMNS } from '../views.ts'

export const command = define({
  arguments: [],
  flags: SERVER_FLAGS,
  async run({ flags }) {
    const images = await serverOf(flags).images.list()
    if (flags.json) printJson(images)
    else printStyled(table(images, IMAGE_COLUMNS))
    return 0
  },
})
