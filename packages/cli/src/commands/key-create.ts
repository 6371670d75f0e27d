import { define, SERVER_FLAGS, UsageError } from '../command.ts'
import { note, print, printJson } from '../output.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [],
  flags: {
    project: { summary: 'Project that it opens; it begins with its first key. Required.', value: 'P' },
    label: { summary: 'What to call it by in `key list`.', value: 'L' },
    ...SERVER_FLAGS,
  },
  async run({ flags }) {
    const { project, label } = flags
    if (project === undefined) throw new UsageError('--project P is missing')
    ;(await import('../limits.ts')).projectName('--project', project)
    const key = await serverOf(flags).keys.create({
      project,
      ...(label === undefined ? {} : { label }),
    })
    if (flags.json) printJson(key)
    else {
      print(key.key)
      note(`a key of project ${key.project}; it is not shown again. \`icebox key revoke ${key.id}\` takes it back.`)
    }
    return 0
  },
})
