import { BlockList, isIP } from 'node:net'
import { networkInterfaces } from 'node:os'

/** What is not for the whole Internet (RFC 6890 and its registries), and what clouds answer their machines at besides. */
const RESERVED_IPV4 = blockListOf([
  ...['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.0.0.0/24'],
  ...['192.0.2.0/24', '192.88.99.0/24', '192.168.0.0/16', '198.18.0.0/15', '198.51.100.0/24', '203.0.113.0/24'],
  ...['224.0.0.0/4', '240.0.0.0/4', '168.63.129.16/32'],
])
/** All that has been given out for the Internet. What is not in it is private, local, multicast or nothing yet. */
const GLOBAL_IPV6 = blockListOf(['2000::/3'])
const RESERVED_IPV6 = blockListOf(['2001::/23', '2001:db8::/32', '3fff::/20'])

/** Of addresses (`10.1.2.3`, `fd00::1`) and networks (`10.0.0.0/8`). Throws for anything else. */
export function blockListOf(networks: readonly string[]): BlockList {
  const list = new BlockList()
  for (const network of networks) {
    const [address = '', prefix] = network.split('/')
    const family = isIP(address)
    const most = family === 4 ? 32 : 128
    const length = prefix === undefined ? most : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN
    if (family === 0 || !(length <= most))
      throw new TypeError(`${JSON.stringify(network)} is no address and no network`)
    list.addSubnet(address, length, familyOf(address))
  }
  return list
}

export const contains = (list: BlockList, address: string): boolean => list.check(address, familyOf(address))

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIP(address) === 6 ? 'ipv6' : 'ipv4'
}

/** Whether anybody on the Internet could reach it, and it is not an address of this machine. */
export function isPublic(address: string): boolean {
  const [plain = ''] = address.split('%', 1)
  if (isIP(plain) === 0 || isOwn(plain)) return false
  const inner = embeddedIpv4(plain)
  if (inner !== undefined) return isPublic(inner)
  if (isIP(plain) === 4) return !contains(RESERVED_IPV4, plain)
  return contains(GLOBAL_IPV6, plain) && !contains(RESERVED_IPV6, plain)
}

/** Services of this machine trust whoever comes from it, by whichever of its addresses. */
const isOwn = (address: string): boolean =>
  Object.values(networkInterfaces()).some((all) => all?.some((own) => own.address === address))

/**
 * The IPv4 address that packets to an IPv6 address end at: mapped (::ffff:0:0/96), compatible (::/96), translated
 * (::ffff:0:0:0/96), NAT64 (64:ff9b::/96), 6to4 (2002::/16), ISATAP (…:0:5efe:a.b.c.d).
 */
export function embeddedIpv4(address: string): string | undefined {
  if (isIP(address) !== 6) return undefined
  const words = wordsOf(address)
  const [first = 0, second = 0, third = 0, , fifth = 0, sixth = 0, seventh = 0, eighth = 0] = words
  const start = words.slice(0, 6).join()
  const ahead = ['0,0,0,0,0,65535', '0,0,0,0,0,0', '0,0,0,0,65535,0', `${0x64},${0xff9b},0,0,0,0`]
  if (ahead.includes(start)) return dotted(seventh, eighth)
  if (first === 0x2002) return dotted(second, third)
  if ((fifth & ~0x0200) === 0 && sixth === 0x5efe) return dotted(seventh, eighth)
  return undefined
}

const dotted = (high: number, low: number): string => [high >> 8, high & 255, low >> 8, low & 255].join('.')

/** The eight groups of an IPv6 address. */
function wordsOf(address: string): number[] {
  // WHATWG's form has hexadecimal groups only, and `::` at most once.
  const [head = '', tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const read = (text: string) => (text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16)))
  const [before, after] = [read(head), tail === undefined ? [] : read(tail)]
  return [...before, ...Array.from({ length: 8 - before.length - after.length }, () => 0), ...after]
}
