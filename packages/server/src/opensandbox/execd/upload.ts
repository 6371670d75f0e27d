import { posix } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Busboy, type BusboyFileStream } from '@fastify/busboy'
import { collect, type Guest, isError } from '@icebox/model'
import type { z } from 'zod'
import type { App } from '../../context.ts'
import { DEADLINE, within } from '../../deadline.ts'
import { rawBodies, readBody } from '../../raw.ts'
import type { Execd } from './facade.ts'
import { ExecdError } from './failure.ts'
import { makeDirectories, permit } from './permissions.ts'
import { Path, Permission } from './wire.ts'

const Metadata = Permission.extend({ path: Path })
type Metadata = z.infer<typeof Metadata>
/** Bytes of the description of one file. */
const METADATA_LIMIT = 16_384
/** Descriptions that may come before the first of their files. */
const MAX_DESCRIBED = 64
/** Of the head of a part. */
const HEAD_LIMITS = { headerPairs: 32, headerSize: 16_384 }
/** Parts that wait for those before them to be written; small ones are in memory by then. */
const MAX_WAITING = 4

async function readMetadata(part: AsyncIterable<Uint8Array>): Promise<Metadata> {
  const text = await collect(part, METADATA_LIMIT).catch((thrown: unknown) => {
    if (!isError(thrown, 'TooLarge')) throw thrown
    throw new ExecdError('metadata', 'InvalidArgument', `the metadata is longer than ${METADATA_LIMIT} bytes`)
  })
  let json: unknown
  try {
    json = JSON.parse(Buffer.from(text.buffer).toString())
  } catch {
    throw new ExecdError('metadata', 'InvalidArgument', 'the metadata is not valid JSON')
  }
  const metadata = Metadata.safeParse(json)
  if (metadata.success) return metadata.data
  const problems = metadata.error.issues.map(({ path, message }) => `metadata.${path.join('.')}: ${message}`)
  throw new ExecdError('metadata', 'InvalidArgument', problems.join('; '))
}

async function write(
  guest: Guest,
  { path, ...permission }: Metadata,
  content: AsyncIterable<Uint8Array>,
  as: { user?: string },
  signal: AbortSignal,
): Promise<void> {
  await makeDirectories(guest, posix.dirname(path), { owner: permission.owner, group: permission.group }, as, signal)
  const { mode } = permission
  await guest.writeFile(path, content, { ...as, ...(typeof mode === 'number' ? { mode } : {}) }, signal)
  await permit(guest, path, permission, as, signal)
}

/** Files come in pairs of parts, what is to be known of one and then its bytes, and are written as they come. */
export async function uploadRoutes(app: App, execd: Execd): Promise<void> {
  app.register(async (raw: App) => {
    rawBodies(raw)
    raw.post('/files/upload', async (request, reply) => {
      const contentType = request.headers['content-type'] ?? ''
      if (!/^multipart\/form-data\s*;.*boundary=/is.test(contentType))
        throw new ExecdError('content', 'InvalidArgument', 'the body is not multipart/form-data with a boundary')
      await within(
        DEADLINE.work,
        async (signal) => {
          const { guest, as } = await execd.files(request, signal)
          await receive(readBody(request), contentType, signal, (metadata, content) =>
            write(guest, metadata, content, as, signal),
          )
        },
        reply,
      )
      return reply.send()
    })
  })
}

/** Rejects when the signal fires. */
const rejection = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    const fire = () => reject(signal.reason)
    if (signal.aborted) fire()
    else signal.addEventListener('abort', fire, { once: true })
  })

/** Takes the form apart; not taking a file's bytes holds the client back, and so does not taking its files. */
export async function receive(
  body: AsyncIterable<Buffer>,
  contentType: string,
  signal: AbortSignal,
  onFile: (metadata: Metadata, content: AsyncIterable<Uint8Array>) => Promise<void>,
): Promise<void> {
  const form = new Busboy({ headers: { 'content-type': contentType }, isPartAFile: () => true, limits: HEAD_LIMITS })
  const waiting: Metadata[] = []
  let files = 0
  // One part after the other: the next is looked at when the one before it has been dealt with.
  let last: Promise<void> = Promise.resolve()
  const take = async (name: string | undefined, part: BusboyFileStream): Promise<void> => {
    if (name === 'metadata') {
      if (waiting.length === MAX_DESCRIBED)
        throw new ExecdError(
          'metadata',
          'InvalidArgument',
          `metadata of more than ${MAX_DESCRIBED} files comes before them`,
        )
      waiting.push(await readMetadata(part))
      return
    }
    if (name !== 'file') throw new ExecdError('content', 'InvalidArgument', `there is a part ${JSON.stringify(name)}`)
    const metadata = waiting.shift()
    if (metadata === undefined)
      throw new ExecdError('metadata', 'InvalidArgument', 'a file comes without its metadata before it')
    files++
    await onFile(metadata, whole(part))
  }
  const failed = new AbortController()
  /** A form that ends early ends its part as if that were whole: it has said so by then. */
  async function* whole(part: BusboyFileStream): AsyncGenerator<Uint8Array> {
    yield* part
    failed.signal.throwIfAborted()
  }
  form.once('error', (thrown) => {
    const why = thrown instanceof Error ? thrown.message : String(thrown)
    failed.abort(new ExecdError('content', 'InvalidArgument', `the form cannot be read: ${why}`))
  })
  let open = 0
  let done = Promise.withResolvers<void>()
  const dealtWith = () => {
    open--
    done.resolve()
    done = Promise.withResolvers()
  }
  form.on('file', (name, part) => {
    open++
    last = last.then(() => take(name, part)).finally(dealtWith)
    last.catch((thrown) => {
      failed.abort(thrown)
      part.destroy()
    })
  })
  /** Waits while parts wait. The last of them may need more of the body, those before it are whole. */
  async function* heldBack(): AsyncGenerator<Buffer> {
    for await (const chunk of body) {
      yield chunk
      while (open > MAX_WAITING) await done.promise
    }
  }
  const over = AbortSignal.any([signal, failed.signal])
  const taking = async () => {
    await pipeline(Readable.from(heldBack(), { objectMode: false }), form, { signal: over })
    await last
  }
  try {
    // A pipeline that is given up still waits for the next of the body, which may not come before the answer.
    await Promise.race([taking(), rejection(over)])
  } catch (thrown) {
    signal.throwIfAborted()
    failed.signal.throwIfAborted()
    throw thrown
  }
  if (waiting.length > 0) throw new ExecdError('content', 'InvalidArgument', 'metadata comes without its file')
  if (files === 0) throw new ExecdError('content', 'InvalidArgument', 'the form has no file')
}
