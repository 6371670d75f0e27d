import { originOf } from '@icebox/control'
import type { Sandbox, Size } from '@icebox/model'
import {
  CLIENT_ID,
  type E2bSandbox,
  ENVD_VERSION,
  type ListedSandbox,
  NetworkConfig,
  type SandboxDetail,
} from './schemas.ts'

/** The one place where resources become what E2B shows of sandboxes. */

/** `endAt` of a sandbox without an end: E2B knows none. */
const NEVER = '9999-12-31T23:59:59.000Z'

/** E2B's state of a sandbox; undefined: it does not show one that is being made, has failed or is going. */
export function stateOf({ status }: Sandbox): 'running' | 'paused' | undefined {
  switch (status.state) {
    case 'running':
    case 'pausing':
    case 'resuming':
      return 'running'
    case 'paused':
      return 'paused'
    case 'creating':
    case 'deleting':
    case 'failed':
      return undefined
  }
}

export const sizeOf = ({ cpu, memoryMiB, diskMiB }: Size) => ({
  cpuCount: Math.max(1, Math.ceil(cpu)),
  memoryMB: memoryMiB,
  diskSizeMB: diskMiB,
})

const started = (sandbox: Sandbox) => ({
  templateID: originOf(sandbox.spec),
  sandboxID: sandbox.metadata.name,
  clientID: CLIENT_ID,
  envdVersion: ENVD_VERSION,
  ...(sandbox.spec.source.from === 'template' ? { alias: sandbox.spec.source.template } : {}),
})

/** Those of its tokens that its owner is told. `access`: undefined where it is not asked for. */
export interface ToldTokens {
  access: string | undefined
  traffic: string
}

const accessToken = ({ access }: ToldTokens) => (access === undefined ? {} : { envdAccessToken: access })

export const e2bSandbox = (sandbox: Sandbox, tokens: ToldTokens, domain: string | null): E2bSandbox => ({
  ...started(sandbox),
  ...accessToken(tokens),
  ...(sandbox.spec.publicTraffic ? {} : { trafficAccessToken: tokens.traffic }),
  domain,
})

export function listedSandbox(sandbox: Sandbox): ListedSandbox {
  const { metadata, spec, status } = sandbox
  const state = stateOf(sandbox) ?? 'running'
  return {
    ...started(sandbox),
    ...sizeOf(spec.size),
    startedAt: metadata.createdAt,
    endAt: state === 'paused' ? status.lastTransitionAt : (spec.expiresAt ?? NEVER),
    metadata: spec.metadata,
    state,
    volumeMounts: [],
  }
}

export function sandboxDetail(sandbox: Sandbox, tokens: ToldTokens, domain: string | null): SandboxDetail {
  const { spec } = sandbox
  return {
    ...listedSandbox(sandbox),
    ...accessToken(tokens),
    // There is no way out of a sandbox, whatever was asked for.
    allowInternetAccess: false,
    domain,
    // As far as it is E2B's: the native API takes settings of any form.
    network: { ...NetworkConfig.safeParse(spec.network ?? {}).data, allowPublicTraffic: spec.publicTraffic },
    lifecycle: { autoResume: spec.autoResume, onTimeout: spec.onTimeout },
  }
}
