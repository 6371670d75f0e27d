import { type Icebox, type IceboxError, isIceboxError, type Sandbox } from '@icebox/sdk'
import { COMMAND, checkProgram } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { Refusal } from '../failure.ts'
import { Interrupted } from '../interrupt.ts'
import { LIFETIME_FLAGS, lifetime } from '../lifetime.ts'
import { note } from '../output.ts'
import { beforeOutputIsLost } from '../output-lost.ts'
import { presentImage } from '../present-image.ts'
import { serverOf } from '../server.ts'
import { closest } from '../suggest.ts'
import { ICEBOX_FAILED, type Request, runForJson, runHere } from '../terminal.ts'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** A template of that name, else an image. */
async function create(
  server: Icebox,
  source: string,
  life: Awaited<ReturnType<typeof lifetime>>,
  quiet: boolean,
  signal: AbortSignal,
): Promise<Sandbox> {
  const isTemplate = await server.templates.get(source, { signal }).then(
    () => true,
    (thrown: unknown) => {
      // A reference has characters that no template's name has: the server may refuse it as a name.
      if (isIceboxError(thrown, 'NotFound', 'InvalidArgument')) return false
      throw thrown
    },
  )
  if (isTemplate) return server.sandboxes.create({ template: source, ...life })
  const image = await presentImage(server, source, quiet, signal).catch(async (thrown: unknown) => {
    throw isIceboxError(thrown) && couldBeTemplate(source) ? await neither(server, source, thrown) : thrown
  })
  signal.throwIfAborted()
  return server.sandboxes.create({ image, ...life })
}

const couldBeTemplate = (source: string): boolean => /^[a-z0-9-]+$/.test(source)

/** A bare name that is no template was more likely meant as one than as an image of the public registry. */
async function neither(server: Icebox, source: string, asImage: IceboxError): Promise<Refusal> {
  const templates = await server.templates.list()
  const [meant] = closest(
    source,
    templates.map(({ name }) => name),
  )
  const remedy = meant === undefined ? asImage.remedy : `Did you mean the template ${meant}?`
  return new Refusal(asImage.code, `there is no template named ${source}; as an image: ${asImage.message}`, remedy)
}

export const command = define({
  arguments: [{ name: 'template|image', summary: 'Name of a template, else reference of an image.' }],
  rest: COMMAND,
  flags: {
    keep: { summary: 'Do not delete the sandbox at the end.' },
    ...LIFETIME_FLAGS,
    ...SERVER_FLAGS,
  },
  failureStatus: ICEBOX_FAILED,
  async run({ arguments: given, flags, rest: argv }) {
    checkProgram(argv)
    const life = await lifetime(flags)
    const server = serverOf(flags)
    const stop = new AbortController()
    const onSignal = (name: NodeJS.Signals) => stop.abort(new Interrupted(name))
    for (const name of SIGNALS) process.on(name, onSignal)
    // A creation that is under way cannot be called back: its sandbox is awaited, and deleted like any other.
    const creating = create(server, given['template|image'], life, flags.json, stop.signal)
    let removed: Promise<void> | undefined
    const remove = async () => {
      if (flags.keep) return
      removed ??= creating.then((created) => created[Symbol.asyncDispose]())
      await removed
    }
    using _ = beforeOutputIsLost(async () => {
      stop.abort()
      const made = await creating.then(
        () => true,
        () => false,
      )
      if (made) await remove()
    })
    const sandbox = await creating
    try {
      stop.signal.throwIfAborted()
      if (flags.keep && !flags.json) note(sandbox.id)
      const tty = !flags.json && process.stdin.isTTY === true && process.stdout.isTTY === true
      // The sandbox ends with this command: only Ctrl-C is for the program to answer.
      const endsBy = (name: NodeJS.Signals) => name === 'SIGTERM' || name === 'SIGHUP'
      const request: Request = { argv, tty, interactive: tty, endsBy }
      return flags.json ? await runForJson(sandbox, request) : (await runHere(sandbox, request)).status
    } finally {
      await remove()
    }
  },
})
