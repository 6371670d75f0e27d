import type { ProgressLine } from '@icebox/model'
import { isWireError } from './answers.ts'
import { type Connection, NDJSON } from './connection.ts'
import type { CallOptions } from './deadline.ts'
import { IceboxError, notUnderstood, unavailable } from './error.ts'
import { objects } from './streams.ts'

/** What long work is at: a phase in words and, where known, how much of it is done. */
export type Step = Pick<ProgressLine, 'phase' | 'done' | 'total' | 'unit'>

export interface ProgressOptions extends CallOptions {
  onProgress?: ((step: Step) => void) | undefined
}

/** Starts long work and follows it to its result. */
export async function follow<T>(
  connection: Connection,
  path: string,
  json: unknown,
  isA: (result: unknown) => result is T,
  options: ProgressOptions,
): Promise<T> {
  const { onProgress, ...call } = options
  const response = await connection.stream('POST', path, { ...call, json, headers: { accept: NDJSON } })
  for await (const line of objects(connection, response, call)) {
    if (isWireError(line.error)) throw new IceboxError(undefined, line.error)
    if (line.result !== undefined) {
      if (isA(line.result)) return line.result
      throw notUnderstood(`POST ${path} ended with ${JSON.stringify(line.result).slice(0, 200)}`)
    }
    onProgress?.(line)
  }
  throw unavailable(
    `the connection to ${connection.url} ended before the work was done; it may still be going on there`,
  )
}
