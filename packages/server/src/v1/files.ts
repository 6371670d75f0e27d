import type { Project } from '@icebox/control'
import { type FileEvent, FileInfo, type Guest, WireError } from '@icebox/model'
import { z } from 'zod'
import { sendBytes } from '../bytes.ts'
import type { App, Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { line, NDJSON, sendLines } from '../lines.ts'
import { flag, integer, Offset } from '../parameters.ts'
import { rawBodies, readBody } from '../raw.ts'
import { Bytes, FAILURES, Nothing, Ref, streamed } from '../schemas.ts'

const Path = z.string().min(1).max(4096).describe('Absolute, or relative to the home of `user`.')
const User = z
  .string()
  .min(1)
  .max(256)
  .describe('Whose rights are used: a name, uid, `name:group` or `uid:gid`. Default: root.')
const user = User.exactOptional()
const MODE_MAX = 0o7777
const Mode = z.int().min(0).max(MODE_MAX).describe('Permission bits, with setuid, setgid and sticky, as a number.')
const At = z.object({ path: Path, user })

const FileEventLine = z.discriminatedUnion('type', [
  z.object({ type: z.literal('ready') }),
  z.object({ type: z.enum(['create', 'write', 'remove', 'rename', 'chmod']), path: z.string() }),
  z.object({ type: z.literal('overflow') }),
  z.object({ type: z.literal('error'), error: WireError }),
])

async function* eventLines(events: AsyncIterable<FileEvent>): AsyncGenerator<string> {
  yield line({ type: 'ready' })
  for await (const event of events) yield line(event)
}

/** Files in a running sandbox. */
export async function fileRoutes(app: App, context: Context): Promise<void> {
  const tags = ['Files']
  const guestOf = ({ sandboxes }: Project, sandbox: string, signal: AbortSignal): Promise<Guest> =>
    sandboxes.guest(sandbox, signal)

  app.get(
    '/v1/sandboxes/:id/files/content',
    {
      schema: {
        operationId: 'readFile',
        summary: 'Read a file; the header X-File-Info has its FileInfo as base64url of JSON',
        tags,
        params: Ref,
        querystring: At.extend({
          offset: Offset.exactOptional(),
          length: Offset.exactOptional().describe('At most so many bytes.'),
        }),
        response: { 200: streamed('application/octet-stream', Bytes, 'The bytes'), ...FAILURES },
      },
    },
    async ({ params, query, project }, reply) => {
      const { path, ...options } = query
      const { started: file, signal } = await context.streams.open(reply, DEADLINE.reach, async (opened) =>
        (await guestOf(project, params.id, opened)).readFile(path, options, opened),
      )
      const rest = Math.max(0, file.info.size - (options.offset ?? 0))
      await sendBytes(
        reply,
        {
          headers: {
            'content-type': 'application/octet-stream',
            'x-file-info': Buffer.from(JSON.stringify(file.info)).toString('base64url'),
          },
          expected: Math.min(rest, options.length ?? rest),
        },
        file.data,
        signal,
      )
    },
  )

  app.register(async (raw: App) => {
    rawBodies(raw)
    raw.put(
      '/v1/sandboxes/:id/files/content',
      {
        schema: {
          operationId: 'writeFile',
          summary:
            'Write a file: missing directories are made, an existing file is replaced at once when all has arrived',
          tags,
          consumes: ['application/octet-stream'],
          params: Ref,
          querystring: At.extend({ mode: integer(0, MODE_MAX).exactOptional().describe('Decimal.') }),
          body: Bytes,
          response: { 200: FileInfo, ...FAILURES },
        },
      },
      async (request, reply) => {
        const { path, ...options } = request.query
        return within(
          DEADLINE.work,
          async (signal) =>
            (await guestOf(request.project, request.params.id, signal)).writeFile(
              path,
              readBody(request),
              options,
              signal,
            ),
          reply,
        )
      },
    )
  })

  app.get(
    '/v1/sandboxes/:id/files/info',
    {
      schema: {
        operationId: 'getFileInfo',
        summary: 'Describe a file; a symlink itself, not what it points to',
        tags,
        params: Ref,
        querystring: At,
        response: { 200: FileInfo, ...FAILURES },
      },
    },
    async ({ params, query, project }, reply) => {
      const { path, ...options } = query
      return within(
        DEADLINE.reach,
        async (signal) => (await guestOf(project, params.id, signal)).stat(path, options, signal),
        reply,
      )
    },
  )

  app.get(
    '/v1/sandboxes/:id/files/list',
    {
      schema: {
        operationId: 'listFiles',
        summary: 'List a directory, sorted by path',
        tags,
        params: Ref,
        querystring: At.extend({
          depth: integer(1, 1000).exactOptional().describe('1, the default: its own entries.'),
        }),
        response: { 200: z.array(FileInfo), ...FAILURES },
      },
    },
    async ({ params, query, project }, reply) => {
      const { path, ...options } = query
      return within(
        DEADLINE.reach,
        async (signal) => (await guestOf(project, params.id, signal)).list(path, options, signal),
        reply,
      )
    },
  )

  app.post(
    '/v1/sandboxes/:id/files/directory',
    {
      schema: {
        operationId: 'makeDirectory',
        summary: 'Make a directory and its parents',
        tags,
        params: Ref,
        body: z.object({ path: Path, user, mode: Mode.exactOptional() }),
        response: { 200: z.object({ created: z.boolean() }), ...FAILURES },
      },
    },
    async ({ params, body, project }) => {
      const { path, ...options } = body
      const created = await within(DEADLINE.reach, async (signal) =>
        (await guestOf(project, params.id, signal)).makeDirectory(path, options, signal),
      )
      return { created }
    },
  )

  app.post(
    '/v1/sandboxes/:id/files/move',
    {
      schema: {
        operationId: 'moveFile',
        summary: 'Move or rename a file or directory',
        tags,
        params: Ref,
        body: z.object({ from: Path, to: Path, user }),
        response: { 200: FileInfo, ...FAILURES },
      },
    },
    async ({ params, body, project }) => {
      const { from, to, ...options } = body
      return within(DEADLINE.reach, async (signal) =>
        (await guestOf(project, params.id, signal)).move(from, to, options, signal),
      )
    },
  )

  app.post(
    '/v1/sandboxes/:id/files/symlink',
    {
      schema: {
        operationId: 'makeSymlink',
        summary: 'Make a symlink at `path` that points to `target`, as given',
        tags,
        params: Ref,
        body: z.object({ target: z.string().min(1).max(4096), path: Path, user }),
        response: { 200: FileInfo, ...FAILURES },
      },
    },
    async ({ params, body, project }) => {
      const { target, path, ...options } = body
      return within(DEADLINE.reach, async (signal) =>
        (await guestOf(project, params.id, signal)).symlink(target, path, options, signal),
      )
    },
  )

  app.delete(
    '/v1/sandboxes/:id/files',
    {
      schema: {
        operationId: 'removeFile',
        summary: 'Remove a file, or a directory with all it holds',
        tags,
        params: Ref,
        querystring: At,
        response: { 204: Nothing, ...FAILURES },
      },
    },
    async ({ params, query, project }, reply) => {
      const { path, ...options } = query
      await within(DEADLINE.work, async (signal) =>
        (await guestOf(project, params.id, signal)).remove(path, options, signal),
      )
      return reply.code(204).send()
    },
  )

  app.patch(
    '/v1/sandboxes/:id/files',
    {
      schema: {
        operationId: 'setFileAttributes',
        summary: 'Change mode or owner of a file',
        tags,
        params: Ref,
        body: z
          .object({ path: Path, user, mode: Mode.exactOptional(), owner: User.exactOptional() })
          .refine(({ mode, owner }) => mode !== undefined || owner !== undefined, {
            error: 'give mode, owner or both',
          }),
        response: { 200: FileInfo, ...FAILURES },
      },
    },
    async ({ params, body, project }) => {
      const { path, mode, owner, ...options } = body
      const change = { ...(mode === undefined ? {} : { mode }), ...(owner === undefined ? {} : { owner }) }
      return within(DEADLINE.reach, async (signal) =>
        (await guestOf(project, params.id, signal)).setAttributes(path, change, options, signal),
      )
    },
  )

  app.get(
    '/v1/sandboxes/:id/files/watch',
    {
      schema: {
        operationId: 'watchFiles',
        summary: 'Stream what changes in a directory',
        tags,
        params: Ref,
        querystring: At.extend({ recursive: flag.exactOptional() }),
        response: {
          200: streamed(NDJSON, FileEventLine, 'Lines of JSON; `ready` first, once nothing is missed any more'),
          ...FAILURES,
        },
      },
    },
    async ({ params, query, project }, reply) => {
      const { path, ...options } = query
      const { started: events, signal } = await context.streams.open(reply, DEADLINE.reach, async (opened) =>
        (await guestOf(project, params.id, opened)).watch(path, options, opened),
      )
      await sendLines(reply, eventLines(events), signal, (error) => ({ type: 'error', error }))
    },
  )
}
