/** Bytes that are given at a time: a piece between two occurrences may be a single one. */
const BLOCK = 65_536

/** What stands for the bytes looked for, and how often they were found so far. */
export interface Replacing {
  readonly found: number
  /** The bytes with every occurrence replaced, as they come. At most `old` is held back. */
  replaced(data: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, void>
}

/**
 * Replaces bytes in a stream of them, each occurrence once and from the left. The search never goes back in the stream (Knuth, Morris and
 * Pratt), so that it costs the same whatever `old` and the stream are: both are chosen by others.
 */
export function replacing(old: Uint8Array, by: Uint8Array): Replacing {
  const fallbacks = fallbacksOf(old)
  let found = 0
  return {
    get found() {
      return found
    },
    async *replaced(data) {
      /** How much of `old` the stream ends with. What of it came in earlier chunks has not been given yet. */
      let matched = 0
      for await (const chunk of data) {
        const pieces = function* (): Generator<Uint8Array> {
          /** Where in the chunk begins what has not been given; negative while a part of it is in earlier chunks. */
          let kept = -matched
          for (let at = 0; at < chunk.length; at++) {
            while (matched > 0 && old[matched] !== chunk[at]) matched = fallbacks[matched - 1] ?? 0
            if (old[matched] === chunk[at]) matched++
            if (matched < old.length) continue
            yield* between(kept, at + 1 - matched, chunk, old)
            yield by
            found++
            matched = 0
            kept = at + 1
          }
          yield* between(kept, chunk.length - matched, chunk, old)
        }
        yield* inBlocks(pieces())
      }
      if (matched > 0) yield old.subarray(0, matched)
    },
  }
}

function* inBlocks(pieces: Iterable<Uint8Array>): Generator<Uint8Array> {
  let block = new Uint8Array(BLOCK)
  let filled = 0
  for (const piece of pieces) {
    if (filled + piece.length > BLOCK) {
      yield block.subarray(0, filled)
      // Whoever takes it may keep it.
      block = new Uint8Array(BLOCK)
      filled = 0
    }
    if (piece.length > BLOCK) yield piece
    else {
      block.set(piece, filled)
      filled += piece.length
    }
  }
  if (filled > 0) yield block.subarray(0, filled)
}

/** Bytes of a chunk; those before it are the first ones of what was being matched when it came. */
function* between(from: number, to: number, chunk: Uint8Array, old: Uint8Array): Generator<Uint8Array> {
  if (from < 0) yield old.subarray(0, Math.min(to, 0) - from)
  if (to > Math.max(from, 0)) yield chunk.subarray(Math.max(from, 0), to)
}

/** For each length of a beginning, how much shorter a beginning it also ends with. */
function fallbacksOf(old: Uint8Array): Uint32Array {
  const fallbacks = new Uint32Array(old.length)
  let matched = 0
  for (let at = 1; at < old.length; at++) {
    while (matched > 0 && old[matched] !== old[at]) matched = fallbacks[matched - 1] ?? 0
    if (old[matched] === old[at]) matched++
    fallbacks[at] = matched
  }
  return fallbacks
}
