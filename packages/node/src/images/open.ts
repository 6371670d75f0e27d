import { type FileHandle, stat } from 'node:fs/promises'
import { IceboxError, type ImageUpload, type Principal, type Progress, type Reservation } from '@icebox/model'
import { openArchive, openDockerArchive } from './archive.ts'
import { bootstrapTar } from './bootstrap.ts'
import { type LayoutFiles, openLayout } from './layout.ts'
import { openBeneath, pathOf } from './local.ts'
import { PLAIN_CONFIG } from './manifest.ts'
import { type Reference, savedName } from './reference.ts'
import { openRegistry } from './registry/registry.ts'
import { type ImageSource, localPart } from './source.ts'
import type { SourcePolicy } from './source-policy.ts'
import { homeOf } from './user.ts'

/** Where an image is opened, and for whom. */
export interface Opening {
  by: Principal
  policy: SourcePolicy
  cacheDirectory: string
  /** Takes what has to be on disk before. */
  directory: string
  /** Grows with what is kept in memory. */
  held: Reservation
  /** Takes what has to stay open until the image is made, and what people call it. */
  opened: AsyncDisposableStack
  called: Map<string, string>
}

/** Finds what the reference names and reads all but the layers. Throws `Forbidden` when it may not be made for whoever asks. */
export async function openSource(
  reference: Reference,
  opening: Opening,
  progress: Progress,
  signal: AbortSignal,
): Promise<ImageSource> {
  const { by, policy, directory, held, opened } = opening
  const openFile = async (path: string): Promise<FileHandle> => {
    const file = opened.use(await policy.files.open(path, by))
    opening.called.set(pathOf(file), path)
    return file
  }
  progress({ phase: 'resolve' })
  switch (reference.kind) {
    case 'registry':
      return openRegistry(reference, { policy: policy.addresses, credentials: policy.hasCredentials(by), held }, signal)
    case 'oci': {
      const layout = await openFile(reference.directory)
      return openLayout(directoryLayout(layout, reference.directory, opened), reference.tag, signal)
    }
    case 'docker-archive':
      return openDockerArchive(pathOf(await openFile(reference.file)), reference.name, directory, signal)
    case 'tar':
      return openTar(pathOf(await openFile(reference.file)), reference.file)
    case 'directory': {
      const found = await openFile(reference.path)
      if (!(await found.stat()).isDirectory())
        throw new IceboxError('InvalidArgument', `${reference.path} is not a directory`)
      return { config: PLAIN_CONFIG, parts: [localPart(0, { do: 'directory', path: `${pathOf(found)}/.` })] }
    }
    case 'debian': {
      if (!by.installation) throw notBootstrapped(reference.canonical, by)
      const { suite, packages, user } = reference
      const file = await bootstrapTar(suite, packages, opening.cacheDirectory, progress, signal)
      const tar = await openTar(file, file)
      const config = { ...PLAIN_CONFIG, cmd: ['/bin/bash'] }
      if (user === undefined) return { ...tar, config }
      return {
        origin: `${tar.origin} @${user}`,
        config: { ...config, user, workingDir: homeOf(user), env: { ...config.env, LANG: 'C.UTF-8' } },
        parts: [...tar.parts, localPart(0, { do: 'user', name: user })],
      }
    }
  }
}

/** The same of a file that a client has sent. */
export async function openUpload(
  { kind, file, name }: ImageUpload,
  { directory, opened }: Pick<Opening, 'directory' | 'opened'>,
  progress: Progress,
  signal: AbortSignal,
): Promise<ImageSource> {
  progress({ phase: 'resolve' })
  switch (kind) {
    case 'tar': {
      // The next file that is sent may have this one's name, size and inode.
      const { origin: _, ...tar } = await openTar(file, 'the tar')
      return tar
    }
    case 'docker-archive':
      return openDockerArchive(file, name === undefined ? undefined : savedName(name), directory, signal)
    case 'oci': {
      const archive = await openArchive(file, directory, signal)
      opened.defer(() => archive.close())
      const find: LayoutFiles['find'] = async (path) => {
        const found = archive.find(path.join('/'))
        return found && { file: archive.plain, offset: found.offset, length: found.size }
      }
      return openLayout({ name: 'the layout', find }, name, signal)
    }
  }
}

const directoryLayout = (directory: FileHandle, name: string, opened: AsyncDisposableStack): LayoutFiles => ({
  name,
  async find(path) {
    const file = await openBeneath(directory, path).catch((thrown: unknown) => {
      if (thrown instanceof Error && 'code' in thrown && ['ENOENT', 'ENOTDIR'].includes(String(thrown.code)))
        return undefined
      throw thrown
    })
    if (file === undefined) return undefined
    opened.use(file)
    const found = await file.stat()
    if (found.isFile()) return { file: pathOf(file), offset: 0, length: found.size }
    throw new IceboxError('ImageInvalid', `${path.join('/')} in ${name} is no file; links in a layout are not followed`)
  },
})

/** `name` is what people call the file. */
async function openTar(file: string, name: string): Promise<ImageSource> {
  const found = await findFile(file)
  if (!found.isFile()) throw new IceboxError('InvalidArgument', `${name} is not a file`)
  const origin = [name, found.dev, found.ino, found.size, found.mtimeMs].join(' ')
  return { origin, config: PLAIN_CONFIG, parts: [localPart(found.size, { do: 'archive', file, length: found.size })] }
}

const notBootstrapped = (reference: string, { project }: Principal): IceboxError =>
  new IceboxError(
    'Forbidden',
    `${reference} is made by programs that run as root on the server's machine, which keys of project ${project} may not do`,
    { remedy: 'Use an image of a registry, or a template that the operator has made public.' },
  )
/** What is at the path. Throws `NotFound`. */
export async function findFile(path: string) {
  return stat(path).catch((cause: unknown) => {
    throw new IceboxError('NotFound', `${path} cannot be read`, { cause, details: { path } })
  })
}
