import type { Reservation } from '@icebox/model'

/** Bytes before a message in a stream of them: flags and its length. */
const PREFIX = 5

/**
 * The body of an RPC as it comes. What the library puts together of it is held: the whole of it where it is one message, else what has come of
 * the message under way.
 */
export async function* counted(
  body: AsyncIterable<Uint8Array>,
  contentType: string | undefined,
  held: Reservation,
): AsyncGenerator<Uint8Array, void, void> {
  const before = held.bytes
  const isStream = ['application/connect+', 'application/grpc'].some((type) => contentType?.startsWith(type))
  /** Of the message under way: bytes that have come, and that have not. */
  let [come, missing] = [0, 0]
  let prefix: number[] = []
  for await (const chunk of body) {
    let at = 0
    while (isStream && at < chunk.length) {
      if (missing > 0) {
        const taken = Math.min(missing, chunk.length - at)
        at += taken
        come += taken
        missing -= taken
      } else {
        come = 0
        prefix.push(chunk[at++] ?? 0)
        if (prefix.length < PREFIX) continue
        missing = Buffer.from(prefix).readUInt32BE(1)
        prefix = []
      }
    }
    if (!isStream) come += chunk.length
    held.resize(before + (isStream && missing === 0 ? 0 : come))
    yield chunk
  }
}
