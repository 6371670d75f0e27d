import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { gzipSync } from 'node:zlib'
import { type Header, pack } from 'tar-stream'

/** What the tests of images share. */

export const MIB = 1_048_576
export const quiet = () => {}
/** For what must not hang. */
export const soon = (): AbortSignal => AbortSignal.timeout(120_000)

/** A directory that is removed when the test file ends. */
export function temporaryDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), 'icebox-images-'))
  after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** Makes new, empty directories in this one. */
export function freshDirectories(root: string): (name: string) => string {
  let count = 0
  return (name) => {
    const path = join(root, `${name}-${count++}`)
    mkdirSync(path)
    return path
  }
}

/** Runs a program to its end and gives its output. Throws with what it said. */
export const sh = (program: string, ...args: string[]): string =>
  execFileSync(program, args, { encoding: 'utf8', stdio: 'pipe', maxBuffer: 256 * MIB })

export const shell = (script: string, cwd: string): string => {
  return execFileSync('sh', ['-ec', script], { cwd, encoding: 'utf8', stdio: 'pipe', maxBuffer: 256 * MIB })
}

/** Does something with a mounted file system image, and leaves no mount whatever happens. */
export function mounted<T>(type: 'erofs' | 'ext4', file: string, work: (path: string) => T): T {
  const path = mkdtempSync(join(tmpdir(), 'icebox-mount-'))
  try {
    sh('mount', '-t', type, '-o', 'loop,ro', file, path)
    try {
      return work(path)
    } finally {
      sh('umount', path)
    }
  } finally {
    rmSync(path, { recursive: true })
  }
}

/**
 * All there is to know of a tree, a line for each fact, by the programs of this machine: names, types, modes, owners, sizes,
 * links, times, devices, contents, which names are one inode, and extended attributes. Without ext4's lost+found.
 */
export function listing(path: string, options: { xattrs: boolean } = { xattrs: true }): string[] {
  const find = (...args: string[]) => sh('find', path, '-path', join(path, 'lost+found'), '-prune', '-o', ...args)
  const facts = find(
    '-type',
    'd',
    '-printf',
    '%P/ %m %U %G %T@\\n',
    '-o',
    '-printf',
    '%P %y %m %U %G %s %n %T@ %l\\n',
  ).split('\n')
  const devices = shell(
    'find . -type b -exec stat -c "%n %t %T" {} + -o -type c -exec stat -c "%n %t %T" {} +',
    path,
  ).split('\n')
  const contents = shell('find . -type f -exec sha256sum {} +', path).split('\n')
  const inodes = new Map<string, string[]>()
  for (const line of find('-type', 'f', '-links', '+1', '-printf', '%i %P\\n').split('\n').filter(Boolean)) {
    const space = line.indexOf(' ')
    inodes.set(line.slice(0, space), [...(inodes.get(line.slice(0, space)) ?? []), line.slice(space + 1)])
  }
  const links = [...inodes.values()].map((names) => `one inode: ${names.sort().join(' ')}`)
  const attributes = options.xattrs ? xattrsOf(path) : []
  return [...facts, ...devices, ...contents, ...links, ...attributes].filter(Boolean).sort()
}

/** `path name=hex` of every extended attribute. */
export function xattrsOf(path: string): string[] {
  const text = shell('find . -path ./lost+found -prune -o -print0 | xargs -0 getfattr -h -d -m - -e hex', path)
  return text
    .split('\n\n')
    .flatMap((block) => {
      const [first = '', ...rest] = block.split('\n').filter(Boolean)
      return rest.map((line) => `${first.replace('# file: ', '')} ${line}`)
    })
    .sort()
}

export type TarEntry = Partial<Header> & { name: string; content?: string | Buffer; pax?: Record<string, string> }

/** A tar archive of exactly these entries, whatever they say. */
export async function tarOf(entries: TarEntry[]): Promise<Buffer> {
  const archive = pack()
  for (const { content = '', ...header } of entries) archive.entry({ mtime: new Date(1e12), ...header }, content)
  archive.finalize()
  const chunks: Buffer[] = []
  for await (const chunk of archive as AsyncIterable<Buffer>) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

export const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

export interface LayoutOptions {
  architecture?: string
  config?: Record<string, unknown>
  /** Changes the manifest before it is written. */
  manifest?: (manifest: Record<string, unknown>) => void
  /** What the config says of the layers. */
  diffIds?: string[]
}

/** An OCI image layout with one image, `latest`, of these layers as tars. Gives the digest of its manifest. */
export function writeLayout(directory: string, layers: Buffer[], options: LayoutOptions = {}): string {
  mkdirSync(join(directory, 'blobs', 'sha256'), { recursive: true })
  const blob = (bytes: Buffer, mediaType: string) => {
    const digest = sha256(bytes)
    writeFileSync(join(directory, 'blobs', 'sha256', digest.slice(7)), bytes)
    return { mediaType, digest, size: bytes.length }
  }
  const { architecture = 'amd64', config = {}, diffIds = layers.map(sha256) } = options
  const document = { architecture, os: 'linux', config, rootfs: { type: 'layers', diff_ids: diffIds } }
  const manifest = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: blob(Buffer.from(JSON.stringify(document)), 'application/vnd.oci.image.config.v1+json'),
    layers: layers.map((tar) => blob(gzipSync(tar, { level: 1 }), 'application/vnd.oci.image.layer.v1.tar+gzip')),
  }
  options.manifest?.(manifest)
  const described = blob(Buffer.from(JSON.stringify(manifest)), manifest.mediaType)
  const named = { ...described, annotations: { 'org.opencontainers.image.ref.name': 'latest' } }
  writeFileSync(join(directory, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  writeFileSync(join(directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [named] }))
  return described.digest
}

/** The file of a blob in a layout. */
export const blobFile = (directory: string, digest: string): string =>
  join(directory, 'blobs', 'sha256', digest.slice(7))

export const readManifest = (
  directory: string,
  digest: string,
): { config: { digest: string }; layers: { digest: string }[] } =>
  JSON.parse(readFileSync(blobFile(directory, digest), 'utf8'))

/** Every file below, for what must be left as it was. */
export const filesBelow = (directory: string): string[] =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((one) => !one.isDirectory())
    .map((one) => join(one.parentPath, one.name))
    .sort()
