import { IceboxError } from '@icebox/model'
import type { App } from '../../context.ts'

/** What newer versions of execd have, and why not here. */
const ABSENT: [path: string, why: string][] = [
  ['/v1/isolated/*', 'there are no sessions isolated within a sandbox: take a fork of the sandbox'],
  ['/pty', 'terminals are not reached this way: use the native API, or `icebox shell`'],
  ['/pty/*', 'terminals are not reached this way: use the native API, or `icebox shell`'],
  ['/credential-vault', 'there is no credential vault'],
  ['/credential-vault/*', 'there is no credential vault'],
  ['/mcpproxy', 'there is no MCP proxy'],
  ['/mcpproxy/*', 'there is no MCP proxy'],
]

/** Everything else that may be asked for. */
export async function unsupportedRoutes(app: App): Promise<void> {
  app.get('/v1/isolated/capabilities', async () => ({
    available: false,
    setpriv_available: false,
    userns_available: false,
    commit_supported: false,
    diff_supported: false,
  }))
  for (const [path, why] of ABSENT)
    app.all(path, async () => {
      throw new IceboxError('NotImplemented', why)
    })
  app.all('/*', async ({ method, url }) => {
    throw new IceboxError('NotFound', `execd has no ${method} ${url.split('?', 1)[0]}`)
  })
}
