import type { Project } from '@icebox/control'
import { IceboxError, isError, isId, type Snapshot } from '@icebox/model'

/** `[namespace/]alias[:tag]`: how E2B names templates, and snapshots, which are templates to it. */
export interface TemplateName {
  alias: string
  /** Absent: `default` is meant. */
  tag?: string
}

export const DEFAULT_TAG = 'default'

const NAME =
  /^(?:(?<namespace>[a-zA-Z0-9-]{1,63})\/)?(?<alias>[a-zA-Z0-9_-]{1,128})(?::(?<tag>[a-zA-Z0-9_.-]{1,128}))?$/

const notFound = (ref: string): IceboxError =>
  new IceboxError('NotFound', `template '${ref}' not found`, { details: { template: ref } })

/** Undefined when it has not the form of a name, or is in the namespace of another project. */
export function parseName(project: Project, ref: string): TemplateName | undefined {
  const { namespace = project.name, alias, tag } = NAME.exec(ref)?.groups ?? {}
  if (alias === undefined || namespace !== project.name) return undefined
  return tag === undefined ? { alias: alias.toLowerCase() } : { alias: alias.toLowerCase(), tag: tag.toLowerCase() }
}

/** For what is going to be named. Throws `InvalidArgument`. */
export function requireName(project: Project, ref: string): Required<TemplateName> {
  const name = parseName(project, ref)
  if (name === undefined)
    throw new IceboxError(
      'InvalidArgument',
      `'${ref}' is not a name: it must be alias, alias:tag or ${project.name}/alias:tag, of letters, digits, - and _`,
    )
  return { tag: DEFAULT_TAG, ...name }
}

/** One tag only is checked as a whole name is. Throws `InvalidArgument`. */
export const requireTag = (tag: string): string => {
  if (!/^[a-zA-Z0-9_.-]{1,128}$/.test(tag))
    throw new IceboxError('InvalidArgument', `'${tag}' is not a tag: it must be of letters, digits, -, _ and .`)
  return tag.toLowerCase()
}

const tagsOf = ({ spec }: Snapshot): readonly string[] => spec.tags ?? [DEFAULT_TAG]

/** The snapshots, newest first, that the name or id means: all tags of it, or the one that is named. */
export async function snapshotsOf(project: Project, name: TemplateName, signal: AbortSignal): Promise<Snapshot[]> {
  const { alias, tag } = name
  const filter = { name: alias, ...(tag === undefined ? {} : { tag }) }
  const { items: named } = await project.snapshots.list(filter, { limit: Number.POSITIVE_INFINITY }, signal)
  if (named.length > 0 || (tag ?? DEFAULT_TAG) !== DEFAULT_TAG || !isId(alias)) return named
  const found = await project.snapshots.get(alias, signal).catch((error) => {
    if (isError(error, 'NotFound')) return undefined
    throw error
  })
  return found?.spec.purpose === 'user' ? [found] : []
}

/** What a sandbox is to be made from. Throws `NotFound`. */
export async function sourceOf(
  project: Project,
  ref: string,
  signal: AbortSignal,
): Promise<{ template: string } | { snapshotId: string }> {
  const name = parseName(project, ref)
  if (name === undefined) throw notFound(ref)
  const { alias, tag = DEFAULT_TAG } = name
  if (tag === DEFAULT_TAG && (await isTemplate(project, alias, signal))) return { template: alias }
  const snapshot = (await snapshotsOf(project, { alias, tag }, signal)).find(({ status }) => status.state === 'ready')
  if (snapshot === undefined) throw notFound(ref)
  return { snapshotId: snapshot.metadata.name }
}

export async function isTemplate(project: Project, name: string, signal: AbortSignal): Promise<boolean> {
  try {
    await project.templates.get(name, signal)
    return true
  } catch (error) {
    if (error instanceof IceboxError && error.code === 'NotFound') return false
    throw error
  }
}

/** A snapshot as E2B shows it: by its name and one of its tags, else by its id. */
export function snapshotInfo(project: Project, snapshot: Snapshot, tag?: string) {
  const { displayName } = snapshot.spec
  const shown = tag ?? tagsOf(snapshot)[0]
  if (displayName === undefined || shown === undefined)
    return { snapshotID: `${snapshot.metadata.name}:${DEFAULT_TAG}`, names: [] }
  const name = `${project.name}/${displayName}`
  return { snapshotID: `${name}:${shown}`, names: [name] }
}
export { notFound as templateNotFound, tagsOf }
