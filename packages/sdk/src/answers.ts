/**
 * What is looked at of an answer to know that the server speaks this API. The rest is the server's promise, which its own tests
 * keep: validating it all here would put a schema library into every program that uses the SDK.
 */

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

export const isWireError = (value: unknown): value is { code: string; message: string; remedy: string } =>
  isObject(value) &&
  typeof value.code === 'string' &&
  typeof value.message === 'string' &&
  typeof value.remedy === 'string'

/** For answers of which nothing is required but that they are objects. */
export const isAny = <T extends object>(answer: unknown): answer is T => isObject(answer)

export const hasId = <T extends { id: string }>(answer: unknown): answer is T =>
  isObject(answer) && typeof answer.id === 'string'

export const hasPath = <T extends { path: string }>(answer: unknown): answer is T =>
  isObject(answer) && typeof answer.path === 'string'

export const isArrayOf =
  <T>(isA: (item: unknown) => item is T) =>
  (answer: unknown): answer is T[] =>
    Array.isArray(answer) && answer.every(isA)

export interface Page<T> {
  items: T[]
  pagination: { hasNextPage: boolean; nextToken?: string }
}
export const isPageOf =
  <T>(isA: (item: unknown) => item is T) =>
  (answer: unknown): answer is Page<T> =>
    isObject(answer) &&
    isArrayOf(isA)(answer.items) &&
    isObject(answer.pagination) &&
    typeof answer.pagination.hasNextPage === 'boolean'
