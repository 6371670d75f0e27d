import type { Sandbox } from '@icebox/model'

/** How a sandbox whose run is gone comes back, to be added to what happened; empty when there is nothing to come back to. */
export function revival({ metadata, status }: Sandbox): string {
  const back = status.pausedIn ?? status.lastSnapshot
  return back === undefined ? '' : `; \`icebox rollback ${metadata.name} ${back}\` revives it from its last snapshot`
}
