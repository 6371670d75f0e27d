import { createHash } from 'node:crypto'
import { IceboxError, type Size, type Template } from '@icebox/model'
import type { Context } from '../context.ts'
import { ensureImage } from '../images/ensure.ts'
import { until } from '../until.ts'
import { beginBuild } from './build.ts'
import { operationKey } from './resolve.ts'

/**
 * The template of an image with nothing of a user's started: made on first use, hidden, shared by digest and size.
 * Callers at the same time share one build, which goes on when `signal` ends the waiting of one.
 */
export async function bareTemplate(
  context: Context,
  reference: string,
  size: Size,
  byInstallation: boolean | undefined,
  signal: AbortSignal,
): Promise<Template> {
  const image = await ensureImage(context, reference, byInstallation, () => undefined, signal)
  const key = JSON.stringify([image.spec.digest, size.cpu, size.memoryMiB, size.diskMiB])
  const name = `bare-${createHash('sha256').update(key).digest('hex').slice(0, 32)}`
  const present = await context.records.find('Template', name)
  if (present?.status.state === 'ready') return present
  const build = await context.operations.exclusiveInTurn(operationKey(context, name), 'build', (stopping) =>
    beginBuild(context, name, { image: image.spec.digest, size, env: {}, hidden: true }, () => undefined, stopping),
  )
  const template = await until(build.settled, signal)
  if (template.status.state !== 'ready')
    throw new IceboxError('Internal', `template ${name} is ${template.status.state}`)
  return template
}
