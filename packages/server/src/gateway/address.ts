import type { IncomingMessage } from 'node:http'
import { IceboxError, isId } from '@icebox/model'
import { authorityOf, hostName } from '../access.ts'

/** A port of a sandbox that a request is for. */
export interface Address {
  readonly sandbox: string
  readonly port: number
  /** Path and query, as the service behind the port sees them. */
  readonly path: string
  /** What stands before that path in the URL the client used: empty unless the request came by path. */
  readonly prefix: string
}

const PROXY = /^\/v1\/sandboxes\/([^/?]*)\/proxy\/([^/?]*)([/?].*)?$/s
/** Their names are resolved to this machine by every browser, without any DNS. */
const LOCAL = 'localhost'

/**
 * The port a request is for, undefined when it is for the API. By the headers `E2b-Sandbox-Id` and `E2b-Sandbox-Port`, else by a host
 * `<port>-<id>.<domain>`, else by the path. Throws `InvalidArgument` for one that is half right.
 */
export function addressOf(request: IncomingMessage, domains: readonly string[]): Address | undefined {
  const { url = '' } = request
  const byHeaders = fromHeaders(request)
  const byHost = fromHost(hostName(authorityOf(request) ?? ''), domains)
  if (byHeaders !== undefined && byHost !== undefined && !same(byHeaders, byHost))
    throw malformed('the headers E2b-Sandbox-Id and E2b-Sandbox-Port name another place than the host')
  const named = byHeaders ?? byHost
  if (named !== undefined) {
    if (!url.startsWith('/') && url !== '*') throw malformed(`${JSON.stringify(url)} is not a path`)
    return { ...named, path: url, prefix: '' }
  }
  const [whole, id, port, rest = ''] = PROXY.exec(url) ?? []
  if (whole === undefined || id === undefined || port === undefined) return undefined
  return {
    ...place(id, port, 'the path'),
    path: rest.startsWith('/') ? rest : `/${rest}`,
    prefix: whole.slice(0, whole.length - rest.length),
  }
}

const same = (one: Named, other: Named): boolean => one.sandbox === other.sandbox && one.port === other.port

type Named = Pick<Address, 'sandbox' | 'port'>

function fromHeaders({ headers }: IncomingMessage): Named | undefined {
  const [id, port] = [headers['e2b-sandbox-id'], headers['e2b-sandbox-port']]
  if (id === undefined && port === undefined) return undefined
  return place(String(id ?? ''), String(port ?? ''), 'E2b-Sandbox-Id and E2b-Sandbox-Port')
}

function fromHost(host: string, domains: readonly string[]): Named | undefined {
  for (const domain of [LOCAL, ...domains]) {
    if (!host.endsWith(`.${domain}`)) continue
    const label = host.slice(0, -domain.length - 1)
    if (!/^\d+-/.test(label)) continue
    const dash = label.indexOf('-')
    return place(label.slice(dash + 1), label.slice(0, dash), 'the host')
  }
  return undefined
}

function place(id: string, port: string, where: string): Named {
  if (!isId(id)) throw malformed(`${where}: ${JSON.stringify(id)} is not the id of a sandbox`)
  if (!/^[1-9]\d{0,4}$/.test(port) || Number(port) > 65_535)
    throw malformed(`${where}: ${JSON.stringify(port)} is not a port (1–65535)`)
  return { sandbox: id, port: Number(port) }
}

const malformed = (message: string): IceboxError => new IceboxError('InvalidArgument', message)
