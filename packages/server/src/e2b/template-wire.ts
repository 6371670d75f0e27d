import type { Project } from '@icebox/control'
import type { Snapshot, Template } from '@icebox/model'
import { type E2bTemplate, ENVD_VERSION, type TemplateWithBuilds } from './schemas.ts'
import { sizeOf } from './wire.ts'

/** The one place where templates, and snapshots as their builds, become what E2B shows of templates. */

export const buildTag = (tag: string, { metadata }: Template | Snapshot) => ({
  tag,
  buildID: metadata.uid,
  createdAt: metadata.createdAt,
})

function statusOf({ status }: Template | Snapshot): E2bTemplate['buildStatus'] {
  switch (status.state) {
    case 'creating':
      return 'building'
    case 'ready':
      return 'ready'
    case 'deleting':
    case 'failed':
      return 'error'
  }
}

/** How often it was used is not counted. */
const UNCOUNTED = { lastSpawnedAt: null, spawnCount: 0 }

export const named = (project: Project, { metadata, spec, status }: Template) => ({
  templateID: metadata.name,
  public: spec.public === true,
  aliases: [metadata.name],
  names: [`${project.name}/${metadata.name}`],
  createdAt: metadata.createdAt,
  updatedAt: status.lastTransitionAt,
  ...UNCOUNTED,
})

export const e2bTemplate = (project: Project, template: Template): E2bTemplate => ({
  ...named(project, template),
  ...sizeOf(template.spec.size),
  buildID: template.metadata.uid,
  createdBy: null,
  buildCount: 1,
  envdVersion: ENVD_VERSION,
  buildStatus: statusOf(template),
})

const build = (of: Template | Snapshot) => ({
  ...sizeOf(of.spec.size),
  buildID: of.metadata.uid,
  status: statusOf(of),
  createdAt: of.metadata.createdAt,
  updatedAt: of.status.lastTransitionAt,
  ...(of.status.state === 'creating' ? {} : { finishedAt: of.status.lastTransitionAt }),
  envdVersion: ENVD_VERSION,
})

export const withBuilds = (project: Project, template: Template): TemplateWithBuilds => ({
  ...named(project, template),
  builds: [build(template)],
})

/** The snapshots of one name are builds of one template. */
export function ofSnapshots(
  project: Project,
  all: readonly [Snapshot, ...Snapshot[]],
  shown: readonly Snapshot[],
): TemplateWithBuilds {
  const [newest] = all
  const { displayName } = newest.spec
  return {
    templateID: displayName ?? newest.metadata.name,
    public: false,
    aliases: displayName === undefined ? [] : [displayName],
    names: displayName === undefined ? [] : [`${project.name}/${displayName}`],
    createdAt: all.at(-1)?.metadata.createdAt ?? newest.metadata.createdAt,
    updatedAt: newest.status.lastTransitionAt,
    ...UNCOUNTED,
    builds: shown.map(build),
  }
}
