import type { Guest } from '@icebox/model'
import { isError } from '@icebox/model'
import { z } from 'zod'
import { sendJson } from './answer.ts'
import { accessOf, bounded, type Call, guestPath, type Request, type Response } from './call.ts'
import { RestError } from './errors.ts'
import { readJson, written } from './upload.ts'

/** Bytes of a request. */
const LIMIT = 1_048_576
/** Files that become one. */
const MOST = 10_000

const ComposeRequest = z.object({
  source_paths: z.array(z.string().max(4096)).max(MOST),
  destination: z.string(),
  username: z.string().optional(),
})

/** `POST /files/compose`: one file of several, in their order, which then go. Until it is whole nothing has changed. */
export async function composeFiles(
  request: Request,
  response: Response,
  named: Call,
  client: AbortSignal,
): Promise<void> {
  const body = ComposeRequest.safeParse(await readJson(request, LIMIT, named.hold()))
  if (!body.success) throw new RestError(400, `invalid request body: ${z.prettifyError(body.error)}`)
  const { source_paths: sources, destination, username } = body.data
  if (sources.length === 0) throw new RestError(400, 'source_paths is empty')
  if (destination === '') throw new RestError(400, 'destination is empty')
  const call = { ...named, user: username || named.user }
  const access = accessOf(call)
  const signal = bounded(client, 'long')
  const to = guestPath(destination, call)
  const paths: string[] = []
  for (const source of sources) {
    const path = guestPath(source, call)
    if (path === to) throw new RestError(400, `${JSON.stringify(source)} is the destination itself`)
    // Reading nothing of it tells whether it can be read.
    await call.guest.readFile(path, { ...access, length: 0 }, signal).catch((thrown: unknown) => {
      if (isError(thrown, 'NotFound') && thrown.details.errno !== undefined)
        throw new RestError(404, `there is no source ${source}`)
      if (isError(thrown, 'InvalidArgument')) throw new RestError(400, `the source ${source} is not a regular file`)
      throw thrown
    })
    paths.push(path)
  }
  const info = await call.guest.writeFile(to, concatenated(call.guest, paths, access, signal), access, signal)
  for (const path of new Set(paths)) await call.guest.remove(path, access, signal)
  sendJson(response, 200, written(info))
}

async function* concatenated(
  guest: Guest,
  paths: string[],
  access: ReturnType<typeof accessOf>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  for (const path of paths) yield* (await guest.readFile(path, access, signal)).data
}
