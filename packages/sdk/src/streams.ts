import type { Readable } from 'node:stream'
import { isObject } from './answers.ts'
import type { Connection } from './connection.ts'
import type { CallOptions } from './deadline.ts'
import { IceboxError, notUnderstood } from './error.ts'

/** A line longer than this comes from no Icebox server; characters. */
const LONGEST_LINE = 16 * 1024 * 1024

/** Cuts text that arrives in pieces into lines of JSON objects (`application/x-ndjson`). */
export class LineDecoder {
  #rest = ''

  /** The objects that became complete. */
  push(text: string): Record<string, unknown>[] {
    const lines = (this.#rest + text).split('\n')
    this.#rest = lines.pop() ?? ''
    if (this.#rest.length > LONGEST_LINE) throw notUnderstood('a line without end')
    const objects: Record<string, unknown>[] = []
    for (const line of lines) {
      if (line === '') continue
      let object: unknown
      try {
        object = JSON.parse(line)
      } catch {
        object = undefined
      }
      if (!isObject(object)) throw notUnderstood(`the line ${JSON.stringify(line.slice(0, 80))}`)
      objects.push(object)
    }
    return objects
  }
}

/** A body's bytes. A connection that breaks in the middle throws, so that a part is never taken for the whole. */
export async function* bytes(connection: Connection, body: Readable, call: CallOptions): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of body) yield chunk
  } catch (thrown) {
    call.signal?.throwIfAborted()
    throw connection.broken(thrown)
  }
}

/** The objects of a body of lines. */
export async function* objects(
  connection: Connection,
  body: Readable,
  call: CallOptions,
): AsyncGenerator<Record<string, unknown>> {
  const decoder = new LineDecoder()
  body.setEncoding('utf8')
  try {
    for await (const text of body) yield* decoder.push(text)
  } catch (thrown) {
    call.signal?.throwIfAborted()
    throw thrown instanceof IceboxError ? thrown : connection.broken(thrown)
  }
}
