import { Budget, type FileInfo, IceboxError, ITEM_BYTES, Pace, type Reservation } from '@icebox/model'
import { LISTING_BYTES, LISTINGS } from './budget.ts'
import { PayloadReader } from './payload.ts'
import { sorted } from './sorted.ts'
import { readFileInfo } from './wire.ts'

/** As many as the guest lists. */
const MAX_ENTRIES = 100_000
/** A record with all that a kernel lets a file have is shorter. */
const MAX_RECORD = 1024 * 1024

/** What an entry takes for each byte of its record, and besides. */
const entryBytes = (record: number) => 2 * record + 2 * ITEM_BYTES

/** The budget of the listings of one link. */
export const listingBudget = (): Budget =>
  new Budget('the listings of directories of the guest', LISTING_BYTES, LISTINGS)

/**
 * The files that a guest lists, by path. Records are read as they come, so that nothing but the entries is ever kept, and between them
 * others have their turn. Throws `TooManyRequests` where the budget is full, `TooLarge` where there are more files than it ever holds.
 */
export async function readListing(
  parts: AsyncIterable<Uint8Array>,
  hasExtras: boolean,
  budget: Budget,
): Promise<FileInfo[]> {
  using held = budget.reserve(0)
  const pace = new Pace()
  const entries: FileInfo[] = []
  const records = new Records(hasExtras)
  for await (const part of parts) {
    records.push(part)
    for (const entry of records.read(false)) {
      add(entries, entry, held, budget)
      await pace.turn()
    }
  }
  for (const entry of records.read(true)) {
    add(entries, entry, held, budget)
    await pace.turn()
  }
  return sorted(entries, ({ path: a }, { path: b }) => (a < b ? -1 : a > b ? 1 : 0), pace)
}

function add(
  entries: FileInfo[],
  { info, bytes }: { info: FileInfo; bytes: number },
  held: Reservation,
  budget: Budget,
): void {
  const wanted = held.bytes + entryBytes(bytes)
  if (entries.length === MAX_ENTRIES || wanted > budget.limit)
    throw new IceboxError(
      'TooLarge',
      `the directory has more files than are listed at once: ${entries.length} were read`,
    )
  held.resize(wanted)
  entries.push(info)
}

/** Cuts records out of parts that may end anywhere. */
class Records {
  readonly #hasExtras: boolean
  #parts: Uint8Array[] = []
  #bytes = 0
  /** So many have to be there before it is worth another look. */
  #least = 0

  constructor(hasExtras: boolean) {
    this.#hasExtras = hasExtras
  }

  push(part: Uint8Array): void {
    this.#parts.push(part)
    this.#bytes += part.length
  }

  /** Those that are whole. At the end all must be. */
  *read(isEnd: boolean): Generator<{ info: FileInfo; bytes: number }> {
    if (this.#bytes === 0 || (!isEnd && this.#bytes < this.#least)) return
    let rest: Buffer = Buffer.concat(this.#parts)
    while (rest.length > 0) {
      const reader = new PayloadReader(rest)
      let info: FileInfo
      try {
        info = readFileInfo(reader, this.#hasExtras)
      } catch (error) {
        if (isEnd || !reader.wasCutShort || rest.length > MAX_RECORD) throw error
        break
      }
      yield { info, bytes: rest.length - reader.length }
      rest = reader.rest()
    }
    this.#parts = [Buffer.from(rest)]
    this.#bytes = rest.length
    // A record that comes byte by byte is read a few times, not as often as it has bytes.
    this.#least = 2 * rest.length
  }
}
