import { define, JSON_FLAG } from '../command.ts'
import { interruption } from '../interrupt.ts'
import { printJson } from '../output.ts'

export const command = define({
  arguments: [],
  flags: JSON_FLAG,
  async run({ flags }) {
    const [{ diagnose }, { diagnosisText }] = await Promise.all([
      import('../doctor/diagnose.ts'),
      import('../doctor/text.ts'),
    ])
    const diagnosis = await diagnose(interruption())
    if (flags.json) printJson(diagnosis)
    else process.stdout.write(diagnosisText(diagnosis))
    return diagnosis.ok ? 0 : 1
  },
})
