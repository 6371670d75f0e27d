/** The tar library's streams give bytes, and its types do not say so. */
export async function* bytesOf(stream: AsyncIterable<unknown>): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) {
    if (!(chunk instanceof Uint8Array)) throw new TypeError('the tar library gave something else than bytes')
    yield chunk
  }
}
