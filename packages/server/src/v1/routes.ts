import type { App, Context } from '../context.ts'
import { endpointRoutes } from './endpoints.ts'
import { eventRoutes } from './events.ts'
import { execRoutes } from './execs.ts'
import { fileRoutes } from './files.ts'
import { imageRoutes } from './images.ts'
import { keyRoutes } from './keys.ts'
import { portRoutes } from './ports.ts'
import { sandboxRoutes } from './sandboxes.ts'
import { serverRoutes } from './server.ts'
import { snapshotRoutes } from './snapshots.ts'
import { templateRoutes } from './templates.ts'
import { usageRoutes } from './usage.ts'

/** Every route of the API. */
export async function routes(app: App, context: Context): Promise<void> {
  for (const group of [
    serverRoutes,
    sandboxRoutes,
    execRoutes,
    fileRoutes,
    portRoutes,
    endpointRoutes,
    snapshotRoutes,
    templateRoutes,
    imageRoutes,
    usageRoutes,
    keyRoutes,
    eventRoutes,
  ])
    await app.register((scope: App) => group(scope, context))
}
