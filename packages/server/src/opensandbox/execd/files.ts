import { posix } from 'node:path'
import { type FileInfo, type Guest, IceboxError } from '@icebox/model'
import { z } from 'zod'
import type { App } from '../../context.ts'
import { DEADLINE, within } from '../../deadline.ts'
import { flag, repeated } from '../../parameters.ts'
import { filterInSlices } from '../../slices.ts'
import type { Execd } from './facade.ts'
import { ExecdError } from './failure.ts'
import { globMatcher } from './glob.ts'
import { findFile, permit, statOf } from './permissions.ts'
import { replacing } from './replace.ts'
import { Path, Permission, wireFile } from './wire.ts'

/** As deep as a search goes. */
const DEPTH = 1_000
/** Bytes of a file in which text is replaced. */
const REPLACEABLE = 67_108_864
/** Characters of a text to replace: looking for it takes four times as many bytes. */
const LONGEST_OLD = 65_536

/** By name where the pattern has no directory in it, by the path below the root where it has. */
function matcherOf(pattern: string): (path: string) => boolean {
  if (pattern === '' || pattern === '**') return () => true
  const matches = globMatcher(pattern)
  return pattern.includes('/') ? matches : (path) => matches(posix.basename(path))
}

const tooLong = (path: string, size: number | string) =>
  new IceboxError('TooLarge', `${path} has ${size} bytes; text is replaced in files up to ${REPLACEABLE}`)

/** The bytes of a file, which may grow meanwhile, or be of a kind that does not say its size. */
async function* bounded(path: string, data: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, void> {
  let bytes = 0
  for await (const chunk of data) {
    bytes += chunk.length
    if (bytes > REPLACEABLE) throw tooLong(path, 'more')
    yield chunk
  }
}

/** Replaces text in a file and gives how often. The file passes through here and is never held; without the text it stays as it is. */
async function replaceIn(
  guest: Guest,
  path: string,
  { old, new: by }: { old: string; new: string },
  as: { user?: string },
  signal: AbortSignal,
): Promise<number> {
  const [oldBytes, newBytes] = [Buffer.from(old), Buffer.from(by)]
  const changed = async () => {
    const text = replacing(oldBytes, newBytes)
    const { data } = await guest.readFile(path, as, signal)
    return { text, data: text.replaced(bounded(path, data)) }
  }
  // Written only when there is something to replace, which takes a look at all of it.
  const first = await changed()
  for await (const _ of first.data) if (first.text.found > 0) break
  if (first.text.found === 0) return 0
  const second = await changed()
  await guest.writeFile(path, second.data, as, signal)
  return second.text.found
}

/** Files, but for their content. */
export async function fileRoutes(app: App, execd: Execd): Promise<void> {
  const Paths = z.object({ path: repeated(Path).pipe(z.array(Path).min(1)) })

  app.get('/files/info', { schema: { querystring: Paths } }, async (request, reply) =>
    within(
      DEADLINE.read,
      async (signal) => {
        const { guest, as } = await execd.files(request, signal)
        const entries = await Promise.all(
          request.query.path.map(async (path) => {
            const info = await statOf(guest, path, as, signal)
            return [path, wireFile(info)] as const
          }),
        )
        return Object.fromEntries(entries)
      },
      reply,
    ),
  )

  app.delete('/files', { schema: { querystring: Paths } }, async (request, reply) => {
    await within(DEADLINE.work, async (signal) => {
      const { guest, as } = await execd.files(request, signal)
      const { path: paths } = request.query
      const found = await Promise.all(
        paths.map(async (path) => [path, await findFile(guest, path, as, signal)] as const),
      )
      for (const [path, info] of found)
        if (info?.type === 'directory')
          throw new ExecdError('invalid', 'InvalidArgument', `path is a directory: ${path}`)
      for (const [path, info] of found) if (info !== undefined) await guest.remove(path, as, signal)
    })
    return reply.send()
  })

  app.post('/files/permissions', { schema: { body: z.record(Path, Permission) } }, async (request, reply) => {
    await within(DEADLINE.work, async (signal) => {
      const { guest, as } = await execd.files(request, signal)
      for (const path of Object.keys(request.body)) await statOf(guest, path, as, signal)
      for (const [path, permission] of Object.entries(request.body)) await permit(guest, path, permission, as, signal)
    })
    return reply.send()
  })

  app.post('/files/mv', { schema: { body: z.array(z.object({ src: Path, dest: Path })) } }, async (request, reply) => {
    await within(DEADLINE.work, async (signal) => {
      const { guest, as } = await execd.files(request, signal)
      for (const { src, dest } of request.body) {
        await statOf(guest, src, as, signal)
        await statOf(guest, posix.dirname(dest), as, signal)
        if ((await findFile(guest, dest, as, signal)) !== undefined)
          throw new ExecdError('invalid', 'InvalidArgument', `destination path already exists: ${dest}`)
        await guest.move(src, dest, as, signal)
      }
    })
    return reply.send()
  })

  app.get(
    '/files/search',
    { schema: { querystring: z.object({ path: Path, pattern: z.string().max(4096).default('') }) } },
    async (request, reply) => {
      const { path, pattern } = request.query
      const matches = matcherOf(pattern)
      return within(
        DEADLINE.work,
        async (signal) => {
          const { guest, as } = await execd.files(request, signal)
          const root = await statOf(guest, path, as, signal)
          const entries = await guest.list(root.path, { ...as, depth: DEPTH }, signal)
          const isFound = (entry: FileInfo) =>
            entry.type !== 'directory' && matches(posix.relative(root.path, entry.path))
          return (await filterInSlices(entries, isFound, signal)).map(wireFile)
        },
        reply,
      )
    },
  )

  app.post(
    '/files/replace',
    {
      schema: {
        querystring: z.object({ verbose: flag.default(false) }),
        body: z.record(Path, z.object({ old: z.string().min(1).max(LONGEST_OLD), new: z.string() })),
      },
    },
    async (request, reply) => {
      const counts = await within(DEADLINE.work, async (signal) => {
        const { guest, as } = await execd.files(request, signal)
        for (const path of Object.keys(request.body)) {
          const { size } = await statOf(guest, path, as, signal)
          if (size > REPLACEABLE) throw tooLong(path, size)
        }
        const replaced: Record<string, { replacedCount: number }> = {}
        for (const [path, change] of Object.entries(request.body))
          replaced[path] = { replacedCount: await replaceIn(guest, path, change, as, signal) }
        return replaced
      })
      return request.query.verbose ? counts : reply.send()
    },
  )
}
