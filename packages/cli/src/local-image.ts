import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import type { Icebox } from '@icebox/sdk'
import { Refusal } from './failure.ts'
import { imageReference } from './image-reference.ts'
import type { ProgressBar } from './progress.ts'

/** An image made of files of this machine. */
export interface LocalImage {
  kind: 'tar' | 'oci' | 'docker-archive'
  /** A file is sent as it is, a directory as the tar of what is in it. */
  path: string
  isDirectory: boolean
  /** Of several images there. */
  name?: string
  /** What the server knows it by, besides its digest. */
  label: string
}

type Step = ProgressBar['step']

/** Undefined for what does not name files. Throws what is wrong with the path. */
export async function localImage(text: string): Promise<LocalImage | undefined> {
  const label = imageReference(text)
  const scheme = /^(oci|docker-archive|dir|tar):/.exec(label)?.[1]
  if (scheme === undefined) return undefined
  const whole = label.slice(scheme.length + 1)
  // A tag or a name may follow; the path may also have a colon of its own.
  const colon = scheme === 'docker-archive' ? whole.indexOf(':') : scheme === 'oci' ? whole.lastIndexOf(':') : -1
  const [path, name] = colon < 0 || existsSync(whole) ? [whole] : [whole.slice(0, colon), whole.slice(colon + 1)]
  const found = await stat(path).catch(() => undefined)
  if (found === undefined) throw new Refusal('NotFound', `there is no ${path}`, `Check the path of ${text}.`)
  const isDirectory = scheme === 'dir' || scheme === 'oci'
  if (found.isDirectory() !== isDirectory || !(isDirectory || found.isFile()))
    throw new Refusal(
      'InvalidArgument',
      `${path} is not a ${isDirectory ? 'directory' : 'file'}`,
      `Check the path of ${text}.`,
    )
  const kind = scheme === 'oci' || scheme === 'docker-archive' ? scheme : 'tar'
  return { kind, path, isDirectory, label, ...(name === undefined ? {} : { name }) }
}

/** Sends it to the server and gives the image that the server has made of it. */
export async function sendImage(server: Icebox, image: LocalImage, step: Step, signal?: AbortSignal) {
  const { kind, name, label } = image
  const content = image.isDirectory ? packed(image.path) : contentOf(image.path)
  return server.images.import(counted(content, step), { kind, name, label, signal })
}

async function* counted(content: AsyncIterable<Uint8Array>, step: Step): AsyncGenerator<Uint8Array> {
  let done = 0
  for await (const piece of content) {
    yield piece
    done += piece.byteLength
    step({ phase: 'sending', done, unit: 'bytes' })
  }
}

async function* contentOf(path: string): AsyncGenerator<Uint8Array> {
  await using handle = await open(path)
  yield* handle.createReadStream({ autoClose: false })
}

/**
 * The tar of a directory: owners as numbers, times to the nanosecond, extended attributes, no other file systems. A tar that could not be
 * made in full ends in an error, so that the server takes no part for the whole.
 */
async function* packed(directory: string): AsyncGenerator<Uint8Array> {
  const child = spawn(
    'tar',
    [
      ...['--create', '--format=pax', '--pax-option=delete=atime,delete=ctime', '--numeric-owner', '--sort=name'],
      ...['--one-file-system', '--xattrs', '--xattrs-include=*', '--warning=no-file-ignored', '-C', directory, '.'],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, LC_ALL: 'C' } },
  )
  const ended = Promise.withResolvers<string | undefined>()
  child.once('error', (error) => ended.resolve(error.message))
  child.once('close', (status, name) => ended.resolve(status === 0 ? undefined : `ended with ${status ?? name}`))
  const said = lastWords(child.stderr)
  try {
    yield* child.stdout
    const failure = await ended.promise
    if (failure !== undefined)
      throw new Refusal(
        'Conflict',
        `${directory} cannot be sent: ${(await said) || `tar ${failure}`}`,
        'Send files that you may read and that nobody changes meanwhile; tar must be installed.',
      )
  } finally {
    child.kill('SIGKILL')
  }
}

/** The last line, as far as there is one. */
async function lastWords(output: Readable): Promise<string> {
  let text = ''
  for await (const piece of output) text = (text + String(piece)).slice(-4096)
  return text.trim().split('\n').at(-1) ?? ''
}
