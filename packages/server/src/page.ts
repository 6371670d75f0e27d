import type { Pagination } from '@icebox/model'
import type { z } from 'zod'
import { integer } from './parameters.ts'

export const PageQuery = {
  page: integer(1, 1_000_000_000).default(1),
  pageSize: integer(1, 1000).default(20),
}

/** One page of a list, whose order the control plane keeps the same. A page past the end is empty. */
export function paginate<R, W>(
  resources: readonly R[],
  { page, pageSize }: { page: number; pageSize: number },
  wire: (resource: R) => W,
): { items: W[]; pagination: z.infer<typeof Pagination> } {
  const from = (page - 1) * pageSize
  const totalItems = resources.length
  const totalPages = Math.ceil(totalItems / pageSize)
  return {
    items: resources.slice(from, from + pageSize).map(wire),
    pagination: { page, pageSize, totalItems, totalPages, hasNextPage: page < totalPages },
  }
}
