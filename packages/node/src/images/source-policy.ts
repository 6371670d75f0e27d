import type { IceboxError, Principal } from '@icebox/model'
import { AddressPolicy } from '../outbound/policy.ts'
import { LocalFiles } from './local.ts'

export interface SourceSettings {
  /** Where registries may be besides the Internet: hosts, also with a port, and networks. */
  registries?: readonly string[]
  /** Projects whose pulls may show the operator's credentials, as those with the installation's own key do. */
  credentials?: readonly string[]
  /** Directories of this machine that every project may have images made of. */
  directories?: readonly string[]
  /** Files and directories that no image may be made of. */
  secret?: readonly string[]
  /** Told why a registry could not be used: whose pull it was is told no reason. */
  onUnreachable?: (registry: string, error: IceboxError) => void
}

/** What images may be made of, and for whom. */
export interface SourcePolicy {
  addresses: AddressPolicy
  files: LocalFiles
  hasCredentials(by: Principal): boolean
}

/** What the person at this machine may anyway. */
export const UNLIMITED: SourcePolicy = {
  addresses: AddressPolicy.anything,
  files: new LocalFiles({ shared: [], secret: [] }),
  hasCredentials: () => true,
}

/** Throws `TypeError` for a registry that is neither a host name nor an address nor a network. */
export const sourcePolicy = ({
  registries = [],
  credentials = [],
  directories = [],
  secret = [],
}: SourceSettings): SourcePolicy => ({
  addresses: new AddressPolicy(registries),
  files: new LocalFiles({ shared: directories, secret }),
  hasCredentials: ({ project, installation }) => installation || credentials.includes(project),
})
