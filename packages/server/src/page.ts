import type { PageRequest, Slice } from '@icebox/control'
import { IceboxError, type Pagination } from '@icebox/model'
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

type Query = { page?: number; pageSize: number; after?: string }

/** What a query asks for. A page past the end is empty. Throws `InvalidArgument` for a page and a token together. */
export function pageOf({ page, pageSize, after }: Query): PageRequest {
  if (page !== undefined && after !== undefined)
    throw new IceboxError('InvalidArgument', 'query.after: give either page or after')
  return after === undefined ? { limit: pageSize, skip: ((page ?? 1) - 1) * pageSize } : { limit: pageSize, after }
}

/** The answer with one page of a list. */
export function paginate<R, W>(
  { items, from, total, next }: Slice<R>,
  { page, pageSize }: Query,
  wire: (resource: R) => W,
): { items: W[]; pagination: z.infer<typeof Pagination> } {
  return {
    items: items.map(wire),
    pagination: {
      page: page ?? Math.floor(from / pageSize) + 1,
      pageSize,
      totalItems: total,
      totalPages: Math.ceil(total / pageSize),
      hasNextPage: next !== undefined,
      ...(next === undefined ? {} : { nextToken: next }),
    },
  }
}
