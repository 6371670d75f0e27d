import { posix } from 'node:path'
import { IceboxError } from '@icebox/model'
import { z } from 'zod'
import type { App } from '../../context.ts'
import { DEADLINE, within } from '../../deadline.ts'
import { flag, repeated } from '../../parameters.ts'
import type { Execd } from './facade.ts'
import { ExecdError } from './failure.ts'
import { findFile, permit, statOf } from './permissions.ts'
import { Path, Permission, wireFile } from './wire.ts'

/** As deep as a search goes. */
const DEPTH = 1_000
/** Bytes of a file in which text is replaced: it is held as a whole. */
const REPLACEABLE = 67_108_864
/** Bytes of a request with the texts to replace. */
const REPLACE_BODY = 16_777_216

/** By name where the pattern has no directory in it, by the path below the root where it has. */
const matches = (pattern: string, path: string): boolean =>
  pattern === '**' || posix.matchesGlob(pattern.includes('/') ? path : posix.basename(path), pattern)

/** Bytes as characters one to one: what is no UTF-8 stays as it is. */
const binary = (text: string): string => Buffer.from(text).toString('latin1')

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
      return within(
        DEADLINE.work,
        async (signal) => {
          const { guest, as } = await execd.files(request, signal)
          const root = await statOf(guest, path, as, signal)
          const entries = await guest.list(root.path, { ...as, depth: DEPTH }, signal)
          return entries
            .filter(({ type }) => type !== 'directory')
            .filter((entry) => matches(pattern === '' ? '**' : pattern, posix.relative(root.path, entry.path)))
            .map(wireFile)
        },
        reply,
      )
    },
  )

  app.post(
    '/files/replace',
    {
      bodyLimit: REPLACE_BODY,
      schema: {
        querystring: z.object({ verbose: flag.default(false) }),
        body: z.record(Path, z.object({ old: z.string().min(1), new: z.string() })),
      },
    },
    async (request, reply) => {
      const counts = await within(DEADLINE.work, async (signal) => {
        const { guest, as } = await execd.files(request, signal)
        for (const path of Object.keys(request.body)) {
          const { size } = await statOf(guest, path, as, signal)
          if (size > REPLACEABLE)
            throw new IceboxError(
              'TooLarge',
              `${path} has ${size} bytes; text is replaced in files up to ${REPLACEABLE}`,
            )
        }
        const replaced: Record<string, { replacedCount: number }> = {}
        for (const [path, { old, new: by }] of Object.entries(request.body)) {
          const { data } = await guest.readFile(path, { ...as, length: REPLACEABLE }, signal)
          const chunks: Uint8Array[] = []
          for await (const chunk of data) chunks.push(chunk)
          const pieces = Buffer.concat(chunks).toString('latin1').split(binary(old))
          replaced[path] = { replacedCount: pieces.length - 1 }
          if (pieces.length === 1) continue
          const changed = Buffer.from(pieces.join(binary(by)), 'latin1')
          const content = async function* () {
            yield changed
          }
          await guest.writeFile(path, content(), as, signal)
        }
        return replaced
      })
      return request.query.verbose ? counts : reply.send()
    },
  )
}
