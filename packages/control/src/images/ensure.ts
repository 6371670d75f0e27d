import { type Image, type ImageUpload, isError, type NodeImage, type Principal, type Progress } from '@icebox/model'
import { requireRecords } from '../bounds.ts'
import { type Context, DEADLINES, within } from '../context.ts'

const now = () => new Date().toISOString()

/** The image's record: its name is the hex of its digest. */
export const imageName = (digest: string): string => digest.slice(digest.indexOf(':') + 1)

/** Writes down that the node has an image that the project asked for by its reference. */
export async function recordImage({ records }: Pick<Context, 'records'>, image: NodeImage): Promise<Image> {
  const { reference } = image
  const present = await keepImage({ records }, image)
  if (present.spec.reference === reference) return present
  return records.setSpec('Image', present.metadata.name, ({ spec }) => ({ ...spec, reference }))
}

/** The same, but for one that nobody asked for now: the reference that a project knows it by stays. */
export async function keepImage({ records }: Pick<Context, 'records'>, image: NodeImage): Promise<Image> {
  const name = imageName(image.digest)
  const spec = { reference: image.reference, digest: image.digest }
  const status = { state: 'ready' as const, config: image.config, sizeBytes: image.sizeBytes }
  if ((await records.find('Image', name)) === undefined)
    try {
      return await records.create('Image', name, { spec, status: { ...status, lastTransitionAt: now() } })
    } catch (error) {
      // Others of the project have come to need it at the same time.
      if (!isError(error, 'AlreadyExists')) throw error
    }
  return records.setStatus('Image', name, (present) => (present.status.state === 'ready' ? undefined : status))
}

/** Names what is under way for an image: every project has its own record of it. */
export const imageKey = ({ records }: Pick<Context, 'records'>, name: string): string =>
  `image ${records.namespace}/${name}`

/**
 * Takes over another project's image, whose bytes are here, for a sandbox whose intent is written: it keeps the image. A delete
 * that has not seen the intent comes to its end first.
 */
export async function shareImage(
  context: Pick<Context, 'records' | 'operations'>,
  { metadata, spec, status }: Image,
): Promise<Image> {
  await context.operations.ended(imageKey(context, metadata.name))
  return keepImage(context, { ...spec, config: status.config, sizeBytes: status.sizeBytes })
}

/** For whom an image is made: what was written for the installation's own key stays so after a crash. */
const principalOf = ({ records }: Context, byInstallation: boolean | undefined): Principal => ({
  project: records.namespace,
  installation: byInstallation === true,
})

/** Asks the reference's source. Joins an equal pull under way. Throws `Forbidden` when it may not be made for whoever asks. */
export async function pullImage(
  context: Context,
  reference: string,
  byInstallation: boolean | undefined,
  progress: Progress,
  signal: AbortSignal,
): Promise<Image> {
  requireRecords(context, 'Image')
  const by = principalOf(context, byInstallation)
  const until = AbortSignal.any([signal, within(context, DEADLINES.pull)])
  const image = await context.node.pullImage(reference, by, progress, until)
  const record = await recordImage(context, image)
  context.log('info', 'image.pulled', { reference, digest: image.digest, sizeBytes: image.sizeBytes })
  return record
}

/** Makes an image of what its client has sent. */
export async function importImage(
  context: Context,
  upload: ImageUpload,
  progress: Progress,
  signal: AbortSignal,
): Promise<Image> {
  const until = AbortSignal.any([signal, within(context, DEADLINES.pull)])
  const by = principalOf(context, context.byInstallation)
  const image = await context.node.importImage(upload, by, progress, until)
  const record = await recordImage(context, { ...image, reference: upload.reference })
  context.log('info', 'image.imported', { digest: image.digest, sizeBytes: image.sizeBytes })
  return record
}

/** The image as it is here, by digest, id or the reference it was last pulled by; pulled when it is not here. */
export async function ensureImage(
  context: Context,
  reference: string,
  byInstallation: boolean | undefined,
  progress: Progress,
  signal: AbortSignal,
): Promise<Image> {
  const images = context.records.of('Image')
  const called = [...images.where('name', reference), ...images.where('called', reference)]
  const ready = called.filter(({ state }) => state === 'ready')
  const [here] = await context.records.read('Image', ready.slice(0, 1))
  return here ?? pullImage(context, reference, byInstallation, progress, signal)
}
