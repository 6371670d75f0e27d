import type { Pagination } from '@icebox/model'
import type { z } from 'zod'
import { integer } from './parameters.ts'

export const PageQuery = {
  page: integer(1, 1_000_000_000).default(1),
  pageSize: integer(1, 1000).default(20),
}

interface Dated {
  readonly metadata: { readonly name: string; readonly createdAt: string }
}

const newestFirst = (a: Dated, b: Dated): number =>
  a.metadata.createdAt === b.metadata.createdAt
    ? Number(a.metadata.name > b.metadata.name) - Number(a.metadata.name < b.metadata.name)
    : a.metadata.createdAt < b.metadata.createdAt
      ? 1
      : -1

/** One page, newest first, equal times by name: the same list always has the same order. A page past the end is empty. */
export function paginate<R extends Dated, W>(
  resources: readonly R[],
  { page, pageSize }: { page: number; pageSize: number },
  wire: (resource: R) => W,
): { items: W[]; pagination: z.infer<typeof Pagination> } {
  const from = (page - 1) * pageSize
  const totalItems = resources.length
  const totalPages = Math.ceil(totalItems / pageSize)
  return {
    items: resources
      .toSorted(newestFirst)
      .slice(from, from + pageSize)
      .map(wire),
    pagination: { page, pageSize, totalItems, totalPages, hasNextPage: page < totalPages },
  }
}
