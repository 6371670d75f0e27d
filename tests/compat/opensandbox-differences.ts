import type { Differences } from './compatibility.ts'

const NO_VAULT = { is: 'absent', why: 'there is no credential vault: sandboxes have no network' } as const
const NO_ISOLATION = {
  is: 'absent',
  why: 'there are no sessions isolated within a sandbox, and `capabilities` says so: take a fork',
} as const
const NO_SIGNATURES = {
  is: 'absent',
  why: 'endpoints are not signed: what needs a token has it in the headers of the endpoint',
} as const
const NO_NETWORK = { is: 'differs', why: 'sandboxes have no network: what would be allowed is refused' } as const
const NO_DIAGNOSTICS = { is: 'absent', why: 'the output of an entrypoint is at `GET /v1/sandboxes/{id}/logs`' } as const
const OTHER_TEMPLATES = {
  is: 'absent',
  why: 'templates of Icebox have another shape: `icebox template build`, or the native API',
} as const

/** Of npm `@alibaba-group/opensandbox`. */
export const OPENSANDBOX_JS: Differences = {
  'sandbox.credentialVault.create': NO_VAULT,
  'sandbox.credentialVault.delete': NO_VAULT,
  'sandbox.credentialVault.get': NO_VAULT,
  'sandbox.credentialVault.getBinding': NO_VAULT,
  'sandbox.credentialVault.getCredential': NO_VAULT,
  'sandbox.credentialVault.listBindings': NO_VAULT,
  'sandbox.credentialVault.listCredentials': NO_VAULT,
  'sandbox.credentialVault.patch': NO_VAULT,
  'sandbox.credentialVault.patchRules (allow)': NO_NETWORK,
  'sandbox.patchEgressRules (allow)': NO_NETWORK,
  'Sandbox.create (networkPolicy)': NO_NETWORK,
  'Sandbox.create (volumes)': { is: 'absent', why: 'there are no volumes' },
  'sandbox.getSignedEndpoint': NO_SIGNATURES,
  'sandbox.sandboxes.getSignedEndpoint': NO_SIGNATURES,
  'sandbox.isolation.attach': NO_ISOLATION,
  'sandbox.isolation.create': NO_ISOLATION,
  'sandbox.isolation.list': NO_ISOLATION,
  'sandbox.isolation.runOnce': NO_ISOLATION,
  'sandbox.isolation.withSession': NO_ISOLATION,
}

const both = (call: string, difference: Differences[string]): Differences => ({
  [`Sandbox${call}`]: difference,
  [`Sandbox${call.replace(/^(Manager)?/, '$1Sync')}`]: difference,
})

/** Of PyPI `opensandbox`, for both of its ways to call. */
export const OPENSANDBOX_PYTHON: Differences = {
  ...both('.create_from_template', OTHER_TEMPLATES),
  ...both('Manager.create_template', OTHER_TEMPLATES),
  ...both('Manager.delete_template', OTHER_TEMPLATES),
  ...both('Manager.get_template', OTHER_TEMPLATES),
  ...both('Manager.list_templates', OTHER_TEMPLATES),
  ...both('.get_diagnostic_events', NO_DIAGNOSTICS),
  ...both('.get_diagnostic_logs', NO_DIAGNOSTICS),
  ...both('Manager.get_diagnostic_events', NO_DIAGNOSTICS),
  ...both('Manager.get_diagnostic_logs', NO_DIAGNOSTICS),
  ...both('.diagnostics.*', NO_DIAGNOSTICS),
  ...both('.credential_vault.*', NO_VAULT),
  ...both('.isolation.*', NO_ISOLATION),
  ...both('.get_signed_endpoint', NO_SIGNATURES),
  ...both('.patch_egress_rules (allow)', NO_NETWORK),
}
