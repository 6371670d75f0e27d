import { lookup as lookUpByHost } from 'node:dns'
import { Resolver } from 'node:dns/promises'
import { type BlockList, isIP, type LookupFunction } from 'node:net'
import { blockListOf, contains, embeddedIpv4, isPublic } from './address.ts'

const DNS_DEADLINE_MS = 5000
const DNS_TRIES = 2

/** An address that must not be connected to. Whoever asked learns no more than that the host cannot be reached. */
export class AddressRefused extends Error {
  readonly code = 'ERR_ADDRESS_REFUSED'
}

/**
 * Which addresses the server connects to on behalf of others: those of the Internet, and what the operator lists as host names,
 * addresses and networks. A name counts by what it resolves to at the moment of the connection.
 */
export class AddressPolicy {
  /** For who has this machine's network themselves. */
  static readonly anything = new AddressPolicy(['0.0.0.0/0', '::/0'])

  readonly #hosts: ReadonlySet<string>
  readonly #networks: BlockList
  readonly #resolver = new Resolver({ timeout: DNS_DEADLINE_MS, tries: DNS_TRIES })

  /** Throws `TypeError` for what is neither a host name nor an address nor a network. */
  constructor(allowed: readonly string[]) {
    const isNetwork = (entry: string) => entry.includes('/') || isIP(entry) !== 0
    this.#networks = blockListOf(allowed.filter(isNetwork))
    this.#hosts = new Set(allowed.filter((entry) => !isNetwork(entry)).map((entry) => entry.toLowerCase()))
  }

  /** Whether an address may be connected to, for a host that was named so. */
  allows(host: string, address: string): boolean {
    if (this.#hosts.has(host) || contains(this.#networks, address)) return true
    const inner = embeddedIpv4(address)
    return isPublic(address) || (inner !== undefined && contains(this.#networks, inner))
  }

  /** For `net.connect`: gives only addresses that may be connected to. It is not called for addresses. */
  readonly lookup: LookupFunction = (host, options, callback) => {
    this.resolve(host.toLowerCase()).then(
      (addresses) => {
        const fitting = addresses.filter(({ family }) => !options.family || options.family === family)
        const [first] = fitting
        if (first === undefined) callback(new AddressRefused(`${host} has no address that may be connected to`), '', 0)
        else if (options.all) callback(null, fitting)
        else callback(null, first.address, first.family)
      },
      (error: NodeJS.ErrnoException) => callback(error, '', 0),
    )
  }

  /**
   * The addresses of a host that may be connected to, at least one. Throws `AddressRefused` when it has others only, and what the
   * resolver throws when it has none.
   */
  async resolve(host: string): Promise<{ address: string; family: number }[]> {
    const found = (await this.#find(host)).map((address) => ({ address, family: isIP(address) }))
    const allowed = found.filter(({ address }) => this.allows(host, address))
    if (allowed.length === 0)
      throw new AddressRefused(`${host} is ${found.map(({ address }) => address).join(', ')}, which is not allowed`)
    return allowed
  }

  async #find(host: string): Promise<string[]> {
    if (isIP(host) !== 0) return [host]
    if (host === 'localhost' || host.endsWith('.localhost')) return ['127.0.0.1', '::1']
    // The system's resolver holds one of few threads, which the file system needs too, as long as a name server likes.
    if (this.#hosts.has(host)) return this.#findByHost(host)
    const results = await Promise.allSettled([this.#resolver.resolve4(host), this.#resolver.resolve6(host)])
    const addresses = results.flatMap((result) => (result.status === 'fulfilled' ? result.value : []))
    const [failed] = results.filter((result) => result.status === 'rejected')
    if (addresses.length === 0) throw failed?.reason ?? new Error(`${host} has no address`)
    return addresses
  }

  #findByHost(host: string): Promise<string[]> {
    const { promise, resolve, reject } = Promise.withResolvers<string[]>()
    lookUpByHost(host, { all: true }, (error, found) =>
      error === null ? resolve(found.map(({ address }) => address)) : reject(error),
    )
    return promise
  }
}
