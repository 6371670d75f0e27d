import { type Control, originOf } from '@icebox/control'
import { type ImageConfig, isError, type Sandbox } from '@icebox/model'
import type { FastifyBaseLogger } from 'fastify'
import { envdFacade } from './e2b/envd/facade.ts'
import type { Facade } from './gateway/facade.ts'
import { RequestMemory } from './memory.ts'
import { EGRESS_PORT } from './opensandbox/execd/egress.ts'
import { EXECD_PORT, execdFacade } from './opensandbox/execd/facade.ts'

export const ENVD_PORT = 49_983
/** Images whose settings are kept at hand. */
const CONFIGS = 256
const NO_DEFAULTS = { user: '', workingDir: '' }

/** What stands on some ports of every sandbox: the guest services that clients of E2B and OpenSandbox talk to. */
export function guestServices(
  control: Control,
  isSecure: (sandbox: Sandbox) => boolean,
  closing: AbortSignal,
  log: FastifyBaseLogger,
): ReadonlyMap<number, Facade> {
  /** By digest: what an image says never changes. */
  const configs = new Map<string, ImageConfig>()

  const defaultsOf = async ({ metadata, status }: Sandbox, signal: AbortSignal) => {
    if (status.imageName === undefined) return NO_DEFAULTS
    const known = configs.get(status.imageName)
    if (known !== undefined) return known
    const image = await control.project(metadata.namespace).images.get(status.imageName, signal)
    for (const [oldest] of configs) {
      if (configs.size < CONFIGS) break
      configs.delete(oldest)
    }
    configs.set(status.imageName, image.status.config)
    return image.status.config
  }

  const memory = new RequestMemory('sandbox')
  const reach = (id: string, signal: AbortSignal) => control.traffic.reach(id, signal)

  const envd = envdFacade({
    async find(id, signal) {
      const sandbox = await control.traffic.find(id, signal)
      return {
        id,
        running: sandbox.status.state === 'running',
        secure: isSecure(sandbox),
        accessToken: control.traffic.tokens(sandbox).access,
        template: originOf(sandbox.spec),
        env: sandbox.spec.env,
        defaults: await defaultsOf(sandbox, signal).catch((thrown: unknown) => {
          if (isError(thrown, 'NotFound')) return NO_DEFAULTS
          throw thrown
        }),
      }
    },
    reach,
    memory,
    closing,
  })
  const execd = execdFacade({
    reach,
    user: async (sandbox, signal) => (await defaultsOf(sandbox, signal)).user,
    async token(id, signal) {
      const sandbox = await control.traffic.find(id, signal)
      return isSecure(sandbox) ? control.traffic.tokens(sandbox).access : undefined
    },
    memory,
    closing,
    log,
  })
  return new Map([
    [ENVD_PORT, envd],
    [EXECD_PORT, execd],
    [EGRESS_PORT, execd],
  ])
}
