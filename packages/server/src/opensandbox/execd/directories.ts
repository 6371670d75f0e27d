import { z } from 'zod'
import type { App } from '../../context.ts'
import { DEADLINE, within } from '../../deadline.ts'
import { integer, repeated } from '../../parameters.ts'
import type { Execd } from './facade.ts'
import { ExecdError } from './failure.ts'
import { findFile, makeDirectories, statOf } from './permissions.ts'
import { Path, Permission, wireFile } from './wire.ts'

/** Entries in the order of their names, and what a directory holds right after it. */
function inOrder(a: { path: string }, b: { path: string }): number {
  const [left, right] = [a.path.split('/'), b.path.split('/')]
  for (const [index, name] of left.entries()) {
    const other = right[index]
    if (other === undefined) return 1
    if (name !== other) return name < other ? -1 : 1
  }
  return left.length === right.length ? 0 : -1
}

/** Directories. */
export async function directoryRoutes(app: App, execd: Execd): Promise<void> {
  app.get(
    '/directories/list',
    { schema: { querystring: z.object({ path: Path, depth: integer(0, 1000).default(1) }) } },
    async (request, reply) => {
      const { path, depth } = request.query
      return within(
        DEADLINE.work,
        async (signal) => {
          const { guest, as } = await execd.files(request, signal)
          const root = await statOf(guest, path, as, signal)
          if (root.type === 'symlink')
            throw new ExecdError(
              'invalid',
              'InvalidArgument',
              `path is a symbolic link, which is not followed: ${path}`,
            )
          if (root.type !== 'directory')
            throw new ExecdError('invalid', 'InvalidArgument', `path is not a directory: ${path}`)
          if (depth === 0) return []
          const entries = await guest.list(root.path, { ...as, depth }, signal)
          return entries.sort(inOrder).map(wireFile)
        },
        reply,
      )
    },
  )

  app.post('/directories', { schema: { body: z.record(Path, Permission) } }, async (request, reply) => {
    await within(DEADLINE.work, async (signal) => {
      const { guest, as } = await execd.files(request, signal)
      for (const [path, permission] of Object.entries(request.body))
        await makeDirectories(guest, path, permission, as, signal)
    })
    return reply.send()
  })

  app.delete(
    '/directories',
    { schema: { querystring: z.object({ path: repeated(Path).pipe(z.array(Path).min(1)) }) } },
    async (request, reply) => {
      await within(DEADLINE.work, async (signal) => {
        const { guest, as } = await execd.files(request, signal)
        for (const path of request.query.path)
          if ((await findFile(guest, path, as, signal)) !== undefined) await guest.remove(path, as, signal)
      })
      return reply.send()
    },
  )
}
