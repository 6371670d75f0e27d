import { type ExecInfo, type Guest, ITEM_BYTES, type Reservation } from '@icebox/model'

/** How many bytes at the end begin a character of UTF-8 and do not end it. */
function unfinished(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] ?? 0
    if (byte < 0x80) return 0
    if (byte >= 0xc0) return back < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) ? back : 0
  }
  return 0
}

/**
 * What a process has written to stdout so far, from a byte on, as far as it is kept; and the byte after it, which is where to
 * go on from. What is collected counts in `held`. A character of which only a part is there is left for then.
 */
export async function outputSince(
  guest: Guest,
  { id, stdoutBytes, exit }: ExecInfo,
  cursor: number,
  held: Reservation,
  signal: AbortSignal,
): Promise<{ text: Uint8Array; end: number }> {
  if (cursor >= stdoutBytes) return { text: new Uint8Array(), end: stdoutBytes }
  const chunks: Uint8Array[] = []
  const session = await guest.attach(id, { stdout: cursor }, signal)
  try {
    for await (const event of session.events) {
      if (event.type === 'exit') break
      if (event.stream !== 'stdout') continue
      if (event.type === 'output') {
        const data = event.data.subarray(0, stdoutBytes - event.offset)
        // Twice: once more when the pieces are put together.
        held.resize(held.bytes + 2 * data.length + ITEM_BYTES)
        chunks.push(data)
      }
      const next = event.type === 'output' ? event.offset + event.data.length : event.to
      if (next >= stdoutBytes) break
    }
  } finally {
    session.detach()
  }
  const text = Buffer.concat(chunks)
  const cut = exit === undefined ? unfinished(text) : 0
  return { text: text.subarray(0, text.length - cut), end: stdoutBytes - cut }
}
