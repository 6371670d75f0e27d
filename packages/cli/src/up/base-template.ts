import type { Control } from '@icebox/control'
import { BuildTemplate, isError } from '@icebox/model'
import { BASE_TEMPLATE } from '@icebox/node'

/**
 * Begins to build the template `base`, which is for all projects, where there is none, or where an earlier build of ours failed. Resolves when the
 * intent is written: creates from it wait from then on. How the build ends stands in the template and in the log.
 */
export async function beginBaseTemplate(control: Control, signal: AbortSignal): Promise<void> {
  const { name, image } = BASE_TEMPLATE
  const { templates } = control.installation
  const present = await templates.get(name, signal).catch((thrown: unknown) => {
    if (isError(thrown, 'NotFound')) return undefined
    throw thrown
  })
  // One that was cut off has been begun again by the control plane.
  if (present !== undefined && !(present.status.state === 'failed' && present.spec.image === image)) return
  const build = await templates.build(BuildTemplate.parse({ ...BASE_TEMPLATE, public: true }), () => undefined, signal)
  build.settled.catch(() => undefined)
}
