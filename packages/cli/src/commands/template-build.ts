import { define, SERVER_FLAGS, UsageError } from '../command.ts'
import { interruption } from '../interrupt.ts'
import { localImage } from '../local-image.ts'
import { note, print, printJson } from '../output.ts'
import { presentImage } from '../present-image.ts'
import { ProgressBar } from '../progress.ts'
import { serverOf } from '../server.ts'
import { decimal, integer, keyValues, mebibytes, notEmpty } from '../values.ts'

const shell = (text: string): string[] => ['sh', '-c', text]

export const command = define({
  arguments: [{ name: 'name', summary: 'What to call it.' }],
  flags: {
    image: { summary: 'What to boot: any reference that `image pull` takes. Required.', value: 'REF' },
    cpu: { summary: 'Virtual cores, such as 2 or 0.5. Default: 1.', value: 'N' },
    memory: { summary: 'Memory, such as 512MiB. Default: 512MiB.', value: 'SIZE' },
    disk: { summary: 'Disk that can be written, such as 10GiB. Default: 2GiB.', value: 'SIZE' },
    env: { summary: 'Environment variable of everything run in it; may be given often.', value: 'K=V', multiple: true },
    start: { summary: 'Shell command that is started at the build and goes on in every sandbox.', value: 'CMD' },
    public: { summary: 'Sandboxes of every project can be made from it.' },
    'keep-snapshots': { summary: 'Keep only the newest N snapshots of sandboxes made from it.', value: 'N' },
    ready: { summary: 'Shell command that ends with 0 once the snapshot may be taken.', value: 'CMD' },
    ...SERVER_FLAGS,
  },
  async run({ arguments: { name }, flags }) {
    if (flags.image === undefined) throw new UsageError('--image REF is missing')
    notEmpty('--image', flags.image)
    const { CPU, DISK_MIB, displayName, MEMORY_MIB, variables } = await import('../limits.ts')
    const keep = flags['keep-snapshots']
    const size = {
      ...(flags.cpu === undefined ? {} : { cpu: decimal('--cpu', flags.cpu, CPU) }),
      ...(flags.memory === undefined ? {} : { memoryMiB: mebibytes('--memory', flags.memory, MEMORY_MIB) }),
      ...(flags.disk === undefined ? {} : { diskMiB: mebibytes('--disk', flags.disk, DISK_MIB) }),
    }
    const server = serverOf(flags)
    const signal = interruption()
    const called = displayName('NAME', name)
    const isLocal = (await localImage(flags.image)) !== undefined
    const image = !isLocal ? flags.image : await presentImage(server, flags.image, flags.json, signal)
    const options = {
      name: called,
      image,
      size,
      env: variables('--env', keyValues('--env', flags.env)),
      ...(flags.public ? { public: true } : {}),
      ...(keep === undefined ? {} : { keepSnapshots: integer('--keep-snapshots', keep, { min: 1, max: 1_000_000 }) }),
      ...(flags.start === undefined ? {} : { startCommand: shell(flags.start) }),
      ...(flags.ready === undefined ? {} : { readyCommand: shell(flags.ready) }),
    }
    using bar = new ProgressBar(`build ${name}`, flags.json)
    const building = server.templates.build({ ...options, onProgress: bar.step, signal })
    const template = await building.catch((thrown: unknown) => {
      if (signal.aborted) note(`the build goes on; \`icebox template delete ${name}\` gives it up`)
      throw thrown
    })
    bar.done()
    if (flags.json) printJson(template)
    else print(template.name)
    return 0
  },
})
