import { IceboxError } from '@icebox/model'
import { z } from 'zod'
import { Ordered } from './cache/ordered.ts'

/** What has a place in lists. */
export interface Placed {
  readonly createdAt: string
  readonly name: string
}

/** By age; equal times in the order of their names. The order of two resources never changes. */
export type Order = 'newest' | 'oldest'

/** Newest first; equal times in the order of their names, so that pages do not shift. */
export function newestFirst(a: Placed, b: Placed): number {
  if (a.createdAt !== b.createdAt) return a.createdAt < b.createdAt ? 1 : -1
  return a.name < b.name ? -1 : a.name === b.name ? 0 : 1
}
export const oldestFirst = (a: Placed, b: Placed): number => newestFirst(b, a)

const Place = z.tuple([z.iso.datetime(), z.string()])

const tokenOf = ({ createdAt, name }: Placed): string =>
  Buffer.from(JSON.stringify([createdAt, name])).toString('base64url')

/** Throws `InvalidArgument` for what this server never gave out. */
function placeOf(token: string): Placed {
  const refuse = (cause?: unknown) =>
    new IceboxError('InvalidArgument', 'the token is not one that a list has given', {
      cause,
      remedy: 'Send it as it was given, or begin the list again without one.',
    })
  try {
    const [createdAt, name] = Place.parse(JSON.parse(Buffer.from(token, 'base64url').toString('utf8')))
    return { createdAt, name }
  } catch (error) {
    throw refuse(error)
  }
}

export interface PageRequest {
  /** At most so many. */
  limit: number
  /** The `next` of the part before. */
  after?: string | undefined
  /** Counts from the start, for those who have no token. */
  skip?: number
  order?: Order
}

/** A part of a list. */
export interface Slice<R> {
  items: R[]
  /** Position of the first of them in the present list. */
  from: number
  /** Length of the present list. */
  total: number
  /** Gives the next part; absent when nothing follows at the moment. */
  next?: string
}

/**
 * A part of a list that others change meanwhile. A token names the place of the last item and not its position: what is
 * there throughout is in exactly one part, whatever is made or deleted in between. Throws `InvalidArgument` for a token that is none.
 *
 * Without `fits` it costs as much as the part is long, however long the list is.
 */
export function slice<S extends Placed>(
  oldest: Ordered<S>,
  { limit, after, skip = 0, order = 'newest' }: PageRequest,
  fits?: (item: S) => boolean,
): Slice<S> {
  const found = fits === undefined ? oldest : new Ordered<S>(oldestFirst, [...oldest].filter(fits))
  const total = found.length
  const place = after === undefined ? undefined : placeOf(after)
  const from = Math.min(place === undefined ? skip : following(found, place, order), total)
  const items: S[] = []
  for (let at = from; at < Math.min(from + limit, total); at++) {
    const item = found.at(order === 'oldest' ? at : total - 1 - at)
    if (item !== undefined) items.push(item)
  }
  const last = items.at(-1)
  return { items, from, total, ...(last === undefined || from + limit >= total ? {} : { next: tokenOf(last) }) }
}

/** A part of a list that is at hand as a whole. */
export function sliceOf<R extends { metadata: Placed }>(resources: readonly R[], page: PageRequest): Slice<R> {
  const placed = resources.map((resource) => ({ ...resource.metadata, resource }))
  const { items, ...part } = slice(new Ordered<(typeof placed)[number]>(oldestFirst, placed), page)
  return { ...part, items: items.map(({ resource }) => resource) }
}

/** The position, in this order, of what comes after the place. */
const following = <S extends Placed>(oldest: Ordered<S>, place: Placed, order: Order): number =>
  order === 'oldest'
    ? oldest.countWhile((item) => oldestFirst(item, place) <= 0)
    : oldest.length - oldest.countWhile((item) => oldestFirst(item, place) < 0)
