/** The proxy that the environment names for HTTPS to a host; undefined: none. */
export function proxyOf(url: URL, env: NodeJS.ProcessEnv): string | undefined {
  if (url.protocol !== 'https:') return undefined
  const proxy = env.https_proxy || env.HTTPS_PROXY
  if (!proxy) return undefined
  const except = (env.no_proxy || env.NO_PROXY || '').toLowerCase().split(/[\s,]/)
  return except.some((entry) => covers(entry, url)) ? undefined : proxy
}

/** `*`, `example.org` with all below it, `.example.org`, `*.example.org`, an address; each also with a port. */
function covers(entry: string, url: URL): boolean {
  if (entry === '' || entry === '*') return entry === '*'
  const host = url.hostname
  const [, name = entry, port] = /^(.*[^:]):(\d+)$/.exec(entry) ?? []
  if (port !== undefined && port !== (url.port || '443')) return false
  const plain = name.replace(/^\*?\./, '').replace(/^\[|\]$/g, '')
  return host === plain || host === `[${plain}]` || host.endsWith(`.${plain}`)
}
