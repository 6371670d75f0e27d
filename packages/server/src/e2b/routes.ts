import type { App, Context } from '../context.ts'
import { absentRoutes } from './absent.ts'
import { lifecycleRoutes } from './lifecycle.ts'
import { readingRoutes } from './readings.ts'
import { sandboxRoutes } from './sandboxes.ts'
import { snapshotRoutes } from './snapshots.ts'
import { templateRoutes } from './templates.ts'

/** E2B's REST API. Errors on its paths have its shape: `failure.ts` asks `isE2bPath`. */
export async function e2bRoutes(app: App, context: Context): Promise<void> {
  for (const group of [sandboxRoutes, lifecycleRoutes, readingRoutes, snapshotRoutes, templateRoutes, absentRoutes])
    await app.register((scope: App) => group(scope, context))
}
