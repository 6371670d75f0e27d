import type { Differences } from './compatibility.ts'

const NO_VOLUMES = 'Icebox has no volumes: files live in the sandbox and in its snapshots. It answers 404.'
const NO_SECRETS = 'Icebox keeps no secrets for sandboxes. It answers 404.'
const NO_BUILDS =
  'Icebox builds templates by its own API (`icebox template build`) so far. It answers with an error that says so.'
const TAGS =
  'Named snapshots have tags as they do there. A template of `icebox template build` has the tag `default` and gets no other.'
const NETWORK = 'Sandboxes have no network: what is asked for is stored and reported, and opens nothing.'
const NO_MCP = 'Icebox has no MCP gateway and no template with one; a create that asks for `mcp` is refused.'

/** What differs for the JavaScript client, in all its versions. */
export const E2B_JS: Differences = {
  'Volume.*': { is: 'absent', why: NO_VOLUMES },
  'volume.*': { is: 'absent', why: NO_VOLUMES },
  'Sandbox.create (volumeMounts)': { is: 'absent', why: NO_VOLUMES },
  'Secret.*': { is: 'absent', why: NO_SECRETS },
  'secretPaginator.*': { is: 'absent', why: NO_SECRETS },
  'Sandbox.create (mcp)': { is: 'absent', why: NO_MCP },
  'sandbox.getMcpToken': { is: 'absent', why: NO_MCP },
  'sandbox.getMcpUrl': { is: 'absent', why: NO_MCP },
  'Sandbox.updateNetwork': { is: 'differs', why: NETWORK },
  'sandbox.updateNetwork': { is: 'differs', why: NETWORK },
  'Sandbox.create (network)': { is: 'differs', why: NETWORK },
  'Sandbox.create (allowInternetAccess)': { is: 'differs', why: NETWORK },
  'TemplateBase.build': { is: 'absent', why: NO_BUILDS },
  'TemplateBase.buildInBackground': { is: 'absent', why: NO_BUILDS },
  'TemplateBase.getBuildStatus': { is: 'absent', why: NO_BUILDS },
  'TemplateBase.assignTags': { is: 'differs', why: TAGS },
  'TemplateBase.removeTags': { is: 'differs', why: TAGS },
}

/** What differs for the Python client; the asynchronous half has the same under names of its own. */
export const E2B_PYTHON: Differences = Object.fromEntries(
  ['', 'Async'].flatMap((half) => {
    const absent = (names: string[], why: string) =>
      names.map((name) => [`${half}${name}`, { is: 'absent', why }] as const)
    return [
      ...absent(['Volume.*', 'Sandbox.create (volume_mounts)'], NO_VOLUMES),
      ...absent(['Secret.*', 'SecretPaginator.*'], NO_SECRETS),
      ...absent(['Sandbox.create (mcp)', 'Sandbox.get_mcp_token', 'Sandbox.get_mcp_url'], NO_MCP),
      ...absent(['Template.build', 'Template.build_in_background', 'Template.get_build_status'], NO_BUILDS),
      [`${half}Template.assign_tags`, { is: 'differs', why: TAGS }] as const,
      [`${half}Template.remove_tags`, { is: 'differs', why: TAGS }] as const,
      [`${half}Sandbox.update_network`, { is: 'differs', why: NETWORK }] as const,
      [`${half}Sandbox.create (network)`, { is: 'differs', why: NETWORK }] as const,
      [`${half}Sandbox.create (allow_internet_access)`, { is: 'differs', why: NETWORK }] as const,
    ]
  }),
)

const NO_ACCOUNTS = 'Icebox has keys and no accounts: the command line takes the key from E2B_API_KEY.'
const WRITES_FILES = 'It writes files for a template build, for which see `template create`.'

/** What differs for the command line. */
export const E2B_CLI: Differences = {
  'auth login': { is: 'absent', why: NO_ACCOUNTS },
  'auth logout': { is: 'absent', why: NO_ACCOUNTS },
  'auth info': { is: 'absent', why: NO_ACCOUNTS },
  'auth configure': { is: 'absent', why: NO_ACCOUNTS },
  'template create': { is: 'absent', why: NO_BUILDS },
  'template init': { is: 'absent', why: WRITES_FILES },
  'template migrate': { is: 'absent', why: WRITES_FILES },
  'template publish': {
    is: 'absent',
    why: 'A template of Icebox is seen by its project, or by all; no client changes that.',
  },
  'template unpublish': { is: 'absent', why: 'As `template publish`.' },
}
