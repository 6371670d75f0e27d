import { IceboxError } from '@icebox/model'
import { z } from 'zod'
import type { App } from '../../context.ts'
import { DEADLINE, within } from '../../deadline.ts'
import type { Execd } from './facade.ts'

/** The port on which clients of OpenSandbox look for what guards the way out of a sandbox. */
export const EGRESS_PORT = 18_080

const Rules = z.array(z.object({ action: z.enum(['allow', 'deny']), target: z.string().min(1) }))

/** Sandboxes have no network: that is the policy of each, and what it forbids cannot be allowed. */
const POLICY = {
  status: 'ok',
  mode: 'deny_all',
  reason: 'sandboxes have no network',
  policy: { defaultAction: 'deny', egress: [] },
}

/** The policy for what leaves a sandbox. */
export async function egressRoutes(app: App, execd: Execd): Promise<void> {
  app.addHook('preHandler', async (request, reply) => {
    await within(DEADLINE.read, (signal) => execd.guest(request, signal), reply)
  })
  app.get('/policy', async () => POLICY)
  app.patch('/policy', { schema: { body: Rules } }, async ({ body }) => {
    const allowed = body.filter(({ action }) => action === 'allow').map(({ target }) => target)
    if (allowed.length > 0)
      throw new IceboxError('NotImplemented', `${allowed.join(', ')} cannot be allowed: sandboxes have no network`)
    return POLICY
  })
  app.delete('/policy', { schema: { body: z.array(z.string()) } }, async () => POLICY)
}
