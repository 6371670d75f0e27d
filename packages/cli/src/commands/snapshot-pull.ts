import { dirname, resolve } from 'node:path'
import { REFERENCE } from '../arguments.ts'
import { define, JSON_FLAG } from '../command.ts'
import { interruptible } from '../interrupt.ts'
import { checkOutput } from '../local-file.ts'
import { print, printJson, size } from '../output.ts'
import { ProgressBar } from '../progress.ts'
import { bytes } from '../values.ts'

export const command = define({
  arguments: [REFERENCE],
  flags: {
    output: { summary: 'File to write. Default: named after the reference.', value: 'FILE', short: 'o' },
    size: { summary: 'Size of the file system, such as 10GiB. Default: with room to spare.', value: 'SIZE' },
    ...JSON_FLAG,
  },
  async run({ arguments: { ref }, flags }) {
    const sizeBytes = flags.size === undefined ? {} : { sizeBytes: bytes('--size', flags.size) }
    const { cacheDirectory, defaultFileName, pullToExt4 } = await import('@icebox/node')
    const file = flags.output ?? defaultFileName(ref)
    await checkOutput(file)
    using bar = new ProgressBar(`pull ${ref}`, flags.json)
    const directories = { cacheDirectory: cacheDirectory(), workDirectory: dirname(resolve(file)) }
    const pulled = await interruptible((stop) =>
      pullToExt4(ref, file, { ...sizeBytes, ...directories }, bar.step, stop),
    )
    bar.done()
    if (flags.json) printJson({ id: pulled.digest, file, ...pulled })
    else print(`${file}  ${size(pulled.sizeBytes)}  ${pulled.digest}`)
    return 0
  },
})
