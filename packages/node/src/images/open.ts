import { stat } from 'node:fs/promises'
import { IceboxError, type Progress } from '@icebox/model'
import { openDockerArchive } from './archive.ts'
import { bootstrapTar } from './bootstrap.ts'
import { openLayout } from './layout.ts'
import { PLAIN_CONFIG } from './manifest.ts'
import type { Reference } from './reference.ts'
import { openRegistry } from './registry/registry.ts'
import { type ImageSource, localPart } from './source.ts'
import { homeOf } from './user.ts'

/** Finds what the reference names and reads all but the layers. `directory` takes what has to be on disk before. */
export async function openSource(
  reference: Reference,
  places: { cacheDirectory: string; directory: string },
  progress: Progress,
  signal: AbortSignal,
): Promise<ImageSource> {
  progress({ phase: 'resolve' })
  switch (reference.kind) {
    case 'registry':
      return openRegistry(reference, signal)
    case 'oci':
      return openLayout(reference.directory, reference.tag, signal)
    case 'docker-archive':
      return openDockerArchive(reference.file, reference.name, places.directory, signal)
    case 'tar':
      return openTar(reference.file)
    case 'directory': {
      const found = await findFile(reference.path)
      if (!found.isDirectory()) throw new IceboxError('InvalidArgument', `${reference.path} is not a directory`)
      return { config: PLAIN_CONFIG, parts: [localPart(0, { do: 'directory', path: reference.path })] }
    }
    case 'debian': {
      const { suite, packages, user } = reference
      const tar = await openTar(await bootstrapTar(suite, packages, places.cacheDirectory, progress, signal))
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

async function openTar(file: string): Promise<ImageSource> {
  const found = await findFile(file)
  if (!found.isFile()) throw new IceboxError('InvalidArgument', `${file} is not a file`)
  const origin = [file, found.dev, found.ino, found.size, found.mtimeMs].join(' ')
  return { origin, config: PLAIN_CONFIG, parts: [localPart(found.size, { do: 'archive', file, length: found.size })] }
}

/** What is at the path. Throws `NotFound`. */
export async function findFile(path: string) {
  return stat(path).catch((cause: unknown) => {
    throw new IceboxError('NotFound', `${path} cannot be read`, { cause, details: { path } })
  })
}
