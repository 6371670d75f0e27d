import { IceboxError } from '@icebox/model'
import { z } from 'zod'

interface Listed {
  metadata: { createdAt: string; name: string }
}

/** By age; equal times in the order of their names. The order of two resources never changes. */
export type Order = 'newest' | 'oldest'

/** Newest first; equal times in the order of their names, so that pages do not shift. */
export function newestFirst(a: Listed, b: Listed): number {
  if (a.metadata.createdAt !== b.metadata.createdAt) return a.metadata.createdAt < b.metadata.createdAt ? 1 : -1
  return a.metadata.name < b.metadata.name ? -1 : a.metadata.name === b.metadata.name ? 0 : 1
}
const ORDERS: Record<Order, (a: Listed, b: Listed) => number> = {
  newest: newestFirst,
  oldest: (a, b) => newestFirst(b, a),
}

const Place = z.tuple([z.iso.datetime(), z.string()])

const tokenOf = ({ metadata: { createdAt, name } }: Listed): string =>
  Buffer.from(JSON.stringify([createdAt, name])).toString('base64url')

/** Throws `InvalidArgument` for what this server never gave out. */
function placeOf(token: string): Listed {
  const refuse = (cause?: unknown) =>
    new IceboxError('InvalidArgument', 'the token is not one that a list has given', {
      cause,
      remedy: 'Send it as it was given, or begin the list again without one.',
    })
  try {
    const [createdAt, name] = Place.parse(JSON.parse(Buffer.from(token, 'base64url').toString('utf8')))
    return { metadata: { createdAt, name } }
  } catch (error) {
    throw refuse(error)
  }
}

export interface Slice<R> {
  items: R[]
  /** Position of the first of them in the present list. */
  from: number
  /** Gives the next part; absent when nothing follows at the moment. */
  next?: string
}

/**
 * A part of a list that others change meanwhile. A token names the place of the last item and not its position: what is
 * there throughout is in exactly one part, whatever is made or deleted in between.
 * `skip` counts from the start and is for those who have no token. Throws `InvalidArgument` for a token that is none.
 */
export function slice<R extends Listed>(
  resources: readonly R[],
  {
    limit,
    after,
    skip = 0,
    order = 'newest',
  }: { limit: number; after?: string | undefined; skip?: number; order?: Order },
): Slice<R> {
  const compare = ORDERS[order]
  const ordered = resources.toSorted(compare)
  const place = after === undefined ? undefined : placeOf(after)
  const found = place === undefined ? skip : ordered.findIndex((resource) => compare(resource, place) > 0)
  const from = found === -1 ? ordered.length : found
  const items = ordered.slice(from, from + limit)
  const last = items.at(-1)
  return { items, from, ...(last === undefined || from + limit >= ordered.length ? {} : { next: tokenOf(last) }) }
}
