import { basename, resolve } from 'node:path'
import { IceboxError } from '@icebox/model'
import { Digest } from './digest.ts'

/** Where an image comes from, as a person says it. `canonical` says the same in one way only; paths in it are absolute. */
export type Reference = { canonical: string } & (
  | { kind: 'registry'; registry: string; repository: string; tag: string; digest?: string }
  | { kind: 'oci'; directory: string; tag?: string }
  | { kind: 'docker-archive'; file: string; name?: string }
  | { kind: 'directory'; path: string }
  | { kind: 'tar'; file: string }
  | { kind: 'debian'; suite: string; packages: string[]; user?: string }
)

/** `debian:` with one of these is a bootstrap; with anything else it is Docker Hub's repository of that name. */
const DEBIAN_SUITES = ['bullseye', 'bookworm', 'trixie', 'forky', 'sid', 'oldstable', 'stable', 'testing', 'unstable']

/** As long as a path may be. */
const MAX_LENGTH = 4096
const SHOWN_LENGTH = 100

const PACKAGE = /^[a-z0-9][a-z0-9+.-]+$/
const USER = /^[a-z_][a-z0-9_-]{0,31}$/
const REPOSITORY = /^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$/
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/
const REGISTRY = /^([A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?$/
const DOCKER_HUB = 'docker.io'

/**
 * Reads `python:3.12`, `localhost:5000/a/b@sha256:…`, `oci:DIR[:TAG]`, `docker-archive:FILE[:NAME]`, `dir:PATH`, `tar:FILE`
 * and `debian:SUITE[+PACKAGE,PACKAGE][@USER]`. Relative paths are those of this process. Throws `InvalidArgument`.
 */
export function parseReference(text: string): Reference {
  if (text.length > MAX_LENGTH)
    throw invalid(`${text.slice(0, SHOWN_LENGTH)}…`, `it has more than ${MAX_LENGTH} characters`)
  const colon = text.indexOf(':')
  const scheme = text.slice(0, colon)
  const rest = text.slice(colon + 1)
  switch (colon < 0 ? '' : scheme) {
    case 'oci': {
      const [path, tag] = splitLast(rest, TAG)
      const directory = absolute(path, text)
      return { kind: 'oci', canonical: `oci:${directory}${tag ? `:${tag}` : ''}`, directory, ...(tag ? { tag } : {}) }
    }
    case 'docker-archive': {
      // The name has a colon of its own when it has a tag, so the first colon ends the file's.
      const end = rest.indexOf(':')
      const file = absolute(end < 0 ? rest : rest.slice(0, end), text)
      if (end < 0) return { kind: 'docker-archive', canonical: `docker-archive:${file}`, file }
      const name = savedName(rest.slice(end + 1), text)
      return { kind: 'docker-archive', canonical: `docker-archive:${file}:${name}`, file, name }
    }
    case 'dir': {
      const path = absolute(rest, text)
      return { kind: 'directory', canonical: `dir:${path}`, path }
    }
    case 'tar': {
      const file = absolute(rest, text)
      return { kind: 'tar', canonical: `tar:${file}`, file }
    }
    case 'debian': {
      const bootstrap = parseDebian(rest, text)
      if (bootstrap !== undefined) return bootstrap
      break
    }
  }
  const parsed = parseRegistry(text, text)
  const { registry, repository, tag, digest } = parsed
  const canonical = `${registry}/${repository}${digest === undefined ? `:${tag}` : `@${digest}`}`
  return { kind: 'registry', canonical, ...parsed }
}

/** The whole name of an image in a docker archive. Throws `InvalidArgument`. */
export function savedName(name: string, text = name): string {
  const { registry, repository, tag } = parseRegistry(name, text)
  return `${registry}/${repository}:${tag}`
}

function parseDebian(rest: string, text: string): Reference | undefined {
  const at = rest.indexOf('@')
  const user = at < 0 ? undefined : rest.slice(at + 1)
  const bootstrap = at < 0 ? rest : rest.slice(0, at)
  const plus = bootstrap.indexOf('+')
  const suite = plus < 0 ? bootstrap : bootstrap.slice(0, plus)
  // No user has a colon in the name: `debian:bookworm@sha256:…` is an image of the registry.
  if (plus < 0 && (!DEBIAN_SUITES.includes(suite) || user?.includes(':'))) return undefined
  if (!DEBIAN_SUITES.includes(suite))
    throw invalid(text, `${JSON.stringify(suite)} is none of the Debian suites ${DEBIAN_SUITES.join(', ')}`)
  const packages = plus < 0 ? [] : [...new Set(bootstrap.slice(plus + 1).split(','))].sort()
  for (const name of packages)
    if (!PACKAGE.test(name)) throw invalid(text, `${JSON.stringify(name)} is not the name of a Debian package`)
  if (user !== undefined && !USER.test(user)) throw invalid(text, `${JSON.stringify(user)} is not the name of a user`)
  const canonical = `debian:${suite}${packages.length > 0 ? `+${packages.join(',')}` : ''}${at < 0 ? '' : `@${user}`}`
  return { kind: 'debian', canonical, suite, packages, ...(user === undefined ? {} : { user }) }
}

/** The name without a registry is one of Docker Hub, and there without an owner one of `library`, as docker has it. */
function parseRegistry(name: string, text: string) {
  const at = name.indexOf('@')
  const digest = at < 0 ? undefined : name.slice(at + 1)
  if (digest !== undefined && !Digest.safeParse(digest).success)
    throw invalid(text, 'the digest must be sha256:<64 hex digits>')
  const [path, tag = 'latest'] = splitLast(at < 0 ? name : name.slice(0, at), TAG)
  const slash = path.indexOf('/')
  const first = path.slice(0, Math.max(slash, 0))
  const named = slash > 0 && (/[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase())
  const registry = !named || first === 'index.docker.io' ? DOCKER_HUB : first
  const own = named ? path.slice(slash + 1) : path
  const repository = registry === DOCKER_HUB && !own.includes('/') ? `library/${own}` : own
  if (!REGISTRY.test(registry)) throw invalid(text, `${JSON.stringify(registry)} is not the name of a registry`)
  if (!REPOSITORY.test(repository))
    throw invalid(
      text,
      `${JSON.stringify(repository)} is not the name of a repository (lower case letters, digits, ". _ - /")`,
    )
  return { registry, repository, tag, ...(digest === undefined ? {} : { digest }) }
}

/** Splits at the last colon when what follows has the form; a path may have colons of its own. */
function splitLast(text: string, form: RegExp): [string, string?] {
  const colon = text.lastIndexOf(':')
  const end = text.slice(colon + 1)
  return colon > 0 && form.test(end) ? [text.slice(0, colon), end] : [text]
}

function absolute(path: string, text: string): string {
  if (path === '' || path.includes('\0')) throw invalid(text, 'it names no path')
  return resolve(path)
}

const invalid = (text: string, why: string): IceboxError =>
  new IceboxError('InvalidArgument', `${JSON.stringify(text)} is not an image reference: ${why}`, {
    remedy:
      'Use NAME[:TAG|@DIGEST], oci:DIR:TAG, docker-archive:FILE[:NAME], dir:PATH, tar:FILE or debian:SUITE[+PACKAGE,PACKAGE][@USER].',
    details: { reference: text },
  })

/** What a file made of the image is called by default, such as `python-3.12.ext4`. */
export function defaultFileName(text: string): string {
  const reference = parseReference(text)
  return `${baseName(reference)
    .replace(/[^A-Za-z0-9._+-]+/g, '-')
    .slice(0, 200)}.ext4`
}

function baseName(reference: Reference): string {
  switch (reference.kind) {
    case 'registry': {
      const { repository, tag, digest } = reference
      return `${basename(repository)}-${digest === undefined ? tag : digest.slice(0, 19)}`
    }
    case 'oci':
      return [basename(reference.directory), reference.tag].filter(Boolean).join('-')
    case 'docker-archive':
    case 'tar':
      return basename(reference.file).replace(/\.(tar(\.[a-z0-9]+)?|tgz|txz)$/, '') || 'image'
    case 'directory':
      return basename(reference.path) || 'root'
    case 'debian':
      return [
        'debian',
        reference.suite,
        ...reference.packages,
        ...(reference.user === undefined ? [] : [reference.user]),
      ].join('-')
  }
}
