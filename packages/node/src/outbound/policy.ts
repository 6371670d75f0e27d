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

/** What an operator lists: the one port when it has one, else all of them. */
interface Listed {
  host: string | undefined
  networks: BlockList
  port: number | undefined
}

/**
 * Which addresses the server connects to on behalf of others: those of the Internet, and what the operator lists. A name counts by
 * what it resolves to at the moment of the connection.
 */
export class AddressPolicy {
  /** For who has this machine's network themselves. */
  static readonly anything = new AddressPolicy(['0.0.0.0/0', '::/0'])

  readonly #listed: readonly Listed[]
  readonly #resolver = new Resolver({ timeout: DNS_DEADLINE_MS, tries: DNS_TRIES })

  /**
   * Of hosts (`registry.corp`, `10.1.2.3`, `::1`), hosts with a port (`registry.corp:5000`, `[::1]:5000`) and networks
   * (`10.0.0.0/8`). Throws `TypeError` for anything else. `nameServers` as `dns.setServers` takes them; default: the machine's.
   */
  constructor(allowed: readonly string[], nameServers?: readonly string[]) {
    this.#listed = allowed.map(parse)
    if (nameServers !== undefined) this.#resolver.setServers(nameServers)
  }

  /** Whether an address may be connected to, for a host that was named so. */
  allows(host: string, port: number, address: string): boolean {
    const inner = embeddedIpv4(address)
    const isListed = this.#listed.some(
      (entry) =>
        (entry.port === undefined || entry.port === port) &&
        (entry.host === host ||
          contains(entry.networks, address) ||
          (inner !== undefined && contains(entry.networks, inner))),
    )
    return isListed || isPublic(address)
  }

  /** For `net.connect` to a port: gives only addresses that may be connected to. It is not called for addresses. */
  lookup(port: number): LookupFunction {
    return (host, options, callback) => {
      this.resolve(host.toLowerCase(), port).then(
        (addresses) => {
          const fitting = addresses.filter(({ family }) => !options.family || options.family === family)
          const [first] = fitting
          if (first === undefined) callback(new AddressRefused(`${host} has no address of the family`), '', 0)
          else if (options.all) callback(null, fitting)
          else callback(null, first.address, first.family)
        },
        (error: NodeJS.ErrnoException) => callback(error, '', 0),
      )
    }
  }

  /**
   * The addresses of a host that may be connected to, at least one. Throws `AddressRefused` when it has others only, and what the
   * resolver throws when it has none.
   */
  async resolve(host: string, port: number): Promise<{ address: string; family: number }[]> {
    const found = (await this.#find(host)).map((address) => ({ address, family: isIP(address) }))
    const allowed = found.filter(({ address }) => this.allows(host, port, address))
    if (allowed.length === 0)
      throw new AddressRefused(`${host} is ${found.map(({ address }) => address).join(', ')}, which is not allowed`)
    return allowed
  }

  async #find(host: string): Promise<string[]> {
    if (isIP(host) !== 0) return [host]
    if (host === 'localhost' || host.endsWith('.localhost')) return ['127.0.0.1', '::1']
    // The system's resolver holds one of few threads, which the file system needs too, as long as a name server likes.
    if (this.#listed.some((entry) => entry.host === host)) return findByHost(host)
    const results = await Promise.allSettled([this.#resolver.resolve4(host), this.#resolver.resolve6(host)])
    const addresses = results.flatMap((result) => (result.status === 'fulfilled' ? result.value : []))
    const [failed] = results.filter((result) => result.status === 'rejected')
    if (addresses.length === 0) throw failed?.reason ?? new Error(`${host} has no address`)
    return addresses
  }
}

function parse(entry: string): Listed {
  const networkOnly = (text: string, port?: number) => ({ host: undefined, networks: blockListOf([text]), port })
  if (entry.includes('/') || isIP(entry) !== 0) return networkOnly(entry)
  const [, bracketed, name = '', digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(entry) ?? []
  const port = digits === undefined ? undefined : Number(digits)
  const address = bracketed ?? name
  if (isIP(address) !== 0) return networkOnly(address, port)
  if (name === '') throw new TypeError(`${JSON.stringify(entry)} is no host, no address and no network`)
  return { host: name.toLowerCase(), networks: blockListOf([]), port }
}

function findByHost(host: string): Promise<string[]> {
  const { promise, resolve, reject } = Promise.withResolvers<string[]>()
  lookUpByHost(host, { all: true }, (error, found) =>
    error === null ? resolve(found.map(({ address }) => address)) : reject(error),
  )
  return promise
}
