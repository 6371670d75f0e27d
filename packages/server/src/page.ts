import { slice } from '@icebox/control'
import { IceboxError, type Metadata, type Pagination } from '@icebox/model'
import { z } from 'zod'
import { integer } from './parameters.ts'

export const PageQuery = {
  page: integer(1, 1_000_000_000)
    .exactOptional()
    .describe('Which page, from 1 (the default). What is made or deleted in between shifts the others.'),
  pageSize: integer(1, 1000).default(20),
  after: z
    .string()
    .exactOptional()
    .describe('The `nextToken` of the part before: whatever is made or deleted in between, the others come once.'),
}

/** One page of a list, newest first. A page past the end is empty. Throws `InvalidArgument` for a token that is none. */
export function paginate<R extends { metadata: Pick<Metadata, 'createdAt' | 'name'> }, W>(
  resources: readonly R[],
  { page, pageSize, after }: { page?: number; pageSize: number; after?: string },
  wire: (resource: R) => W,
): { items: W[]; pagination: z.infer<typeof Pagination> } {
  if (page !== undefined && after !== undefined)
    throw new IceboxError('InvalidArgument', 'query.after: give either page or after')
  const totalItems = resources.length
  const totalPages = Math.ceil(totalItems / pageSize)
  const { items, from, next } =
    after === undefined
      ? slice(resources, { limit: pageSize, skip: ((page ?? 1) - 1) * pageSize })
      : slice(resources, { limit: pageSize, after })
  return {
    items: items.map(wire),
    pagination: {
      page: page ?? Math.floor(from / pageSize) + 1,
      pageSize,
      totalItems,
      totalPages,
      hasNextPage: next !== undefined,
      ...(next === undefined ? {} : { nextToken: next }),
    },
  }
}
