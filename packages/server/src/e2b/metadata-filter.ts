import { IceboxError } from '@icebox/model'

/**
 * The filter of E2B's `metadata` query, `key=value` pairs joined by `&`. Clients encode keys and values once more than a query
 * is encoded already, some twice: the text is decoded as a whole and then in its parts. Throws `InvalidArgument`.
 */
export function metadataFilter(query: string | undefined): { metadata?: Record<string, string> } {
  if (query === undefined || query === '') return {}
  const pairs = decode(query)
    .split('&')
    .map((pair) => {
      const [key, value, ...more] = pair.split('=')
      if (key === undefined || value === undefined || more.length > 0)
        throw new IceboxError('InvalidArgument', `metadata: ${JSON.stringify(pair)} is not one key=value`)
      return [decode(key), decode(value)] as const
    })
  return { metadata: Object.fromEntries(pairs) }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    throw new IceboxError('InvalidArgument', `metadata: ${JSON.stringify(text)} is not URL-encoded`)
  }
}
