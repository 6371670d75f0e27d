import { appendFile, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { IceboxError, isId, LogEntry } from '@icebox/model'
import type { Log } from '../log.ts'

/** Bytes of a sandbox's file before a new one is begun. One older file is kept. */
const FILE_BYTES = 2 ** 20
/** Milliseconds that entries wait for company on their way to the disk. */
const DELAY_MS = 50
/** Characters on their way to the disk beyond which whoever writes output waits: so much in each delay is all that is kept up with. */
const PENDING = 2 ** 17
/** The same of all sandboxes together, beyond which each may have one entry on its way. */
const PENDING_IN_ALL = 2 ** 25
/** Characters of one sandbox beyond which entries are dropped that wait for nobody, and counted. */
const KEPT = 2 * PENDING
/** Milliseconds after which what could not be written is tried again. */
const RETRY_MS = 1000

const START: End = { stdout: 0, stderr: 0 }

export type NewEntry = Omit<LogEntry, 'at'>

/** What is known of one sandbox's file. */
interface Book {
  /** Bytes of the present file; -1 until it was looked at. */
  bytes: number
  /** How often a new file was begun. */
  generation: number
  waiting: string[]
  /** Characters that are not yet written. */
  pending: number
  /** What a full disk has not taken of the entries that were to be written last: it begins where the file ends. */
  rest: Buffer<ArrayBuffer>
  /** Characters of the entries that `rest` is of. */
  taken: number
  /** Entries that were dropped since one was written. */
  dropped: number
  /** It was told to the server's log that nothing can be written. */
  failing: boolean
  timer?: NodeJS.Timeout | undefined
  writing: Promise<void>
  /** Runs whose output is being written. */
  active: Set<string>
  wake: Set<() => void>
  /** Where what was appended ends, by exec. */
  ends: Map<string, End>
  /** Its sandbox is gone: nothing more is written. */
  gone: boolean
}
interface End {
  stdout: number
  stderr: number
}

/**
 * What sandboxes have to say, outside them, so that it is there when they are paused, failed or run no more: lines of JSON
 * in two files each, the older of which is dropped. Entries reach the disk soon after they come; a crash loses the last of
 * the lifecycle, while output is read again from where the file ends. On a full disk they wait in memory: output is not read from
 * the guest meanwhile, and what else is more than is kept is counted, which the log tells.
 */
export class SandboxLogs {
  readonly #directory: string
  readonly #log: Log
  readonly #books = new Map<string, Book>()
  /** Characters of all that are not yet written. */
  #pending = 0

  /** In an existing directory of the data directory. */
  constructor(directory: string, log: Log) {
    this.#directory = directory
    this.#log = log
  }

  append(sandbox: string, entry: NewEntry): void {
    this.#append(sandbox, this.#book(sandbox), entry)
  }

  #append(sandbox: string, book: Book, entry: NewEntry): void {
    if (book.gone) return
    if (book.dropped > 0 || book.pending > KEPT) {
      book.dropped += 1
      return
    }
    if (entry.exec !== undefined && entry.end !== undefined && entry.source !== 'lifecycle')
      book.ends.set(entry.exec, { ...(book.ends.get(entry.exec) ?? START), [entry.source]: entry.end })
    const line = lineOf(entry)
    book.waiting.push(line)
    this.#hold(book, line.length)
    book.timer ??= setTimeout(() => this.#flush(sandbox, book), DELAY_MS)
  }

  /**
   * Appends what the processes of a run write as long as `work` goes on, which waits for each entry: who follows waits for it.
   * Does nothing when that is being done for the run already.
   */
  async during(
    sandbox: string,
    run: string,
    work: (append: (entry: NewEntry) => Promise<void>) => Promise<void>,
  ): Promise<void> {
    const book = this.#book(sandbox)
    if (book.active.has(run)) return
    book.active.add(run)
    try {
      await work(async (entry) => {
        // Room for it is waited for before: output is not dropped.
        while ((book.dropped > 0 || book.pending > KEPT) && !book.gone) await woken(book)
        this.#append(sandbox, book, entry)
        while (book.pending > this.#most() && !book.gone) await woken(book)
      })
    } finally {
      book.active.delete(run)
      await this.#flush(sandbox, book)
      for (const wake of book.wake) wake()
    }
  }

  /** Where the output that is here ends, by exec and stream: bytes since the start of the process. */
  async ends(sandbox: string): Promise<ReadonlyMap<string, End>> {
    const book = this.#book(sandbox)
    const ends = new Map<string, End>()
    for await (const { exec, source, end } of this.read(sandbox, { follow: false }, new AbortController().signal)) {
      if (exec === undefined || end === undefined || source === 'lifecycle') continue
      ends.set(exec, { ...(ends.get(exec) ?? START), [source]: end })
    }
    // What was read before is not in memory after a start of the server, and what was appended here may be in no file any more.
    for (const [exec, end] of ends) if (!book.ends.has(exec)) book.ends.set(exec, end)
    return book.ends
  }

  /** Resolves once the output of the exec is here up to the end given, or the signal aborts. */
  async until(sandbox: string, exec: string, end: End, signal: AbortSignal): Promise<void> {
    const book = this.#books.get(sandbox)
    if (book === undefined) return
    const isHere = () => {
      const here = book.ends.get(exec) ?? START
      return here.stdout >= end.stdout && here.stderr >= end.stderr
    }
    while (!isHere() && !book.gone && !signal.aborted) await woken(book, signal)
  }

  /** All entries that are kept, oldest first; with `follow` also what comes, until no process is there to write or the signal aborts. */
  async *read(sandbox: string, { follow }: { follow: boolean }, signal: AbortSignal): AsyncGenerator<LogEntry> {
    const book = this.#books.get(sandbox)
    if (book !== undefined) await this.#flush(sandbox, book)
    yield* entriesOf(await readFile(this.#file(sandbox, 1), 'utf8').catch(() => ''))
    let offset = 0
    let generation = book?.generation
    for (;;) {
      signal.throwIfAborted()
      if (book !== undefined && generation !== book.generation) {
        // A new file was begun: what is left of the one that was being read is in the older one now.
        const older = await readFile(this.#file(sandbox, 1)).catch(() => Buffer.alloc(0))
        if (generation === book.generation - 1) yield* entriesOf(older.subarray(offset).toString())
        generation = book.generation
        offset = 0
      }
      const wasActive = (book?.active.size ?? 0) > 0
      const awaited = book === undefined ? undefined : woken(book, signal)
      const text = await readFrom(this.#file(sandbox, 0), offset)
      const whole = text.slice(0, text.lastIndexOf('\n') + 1)
      offset += Buffer.byteLength(whole)
      yield* entriesOf(whole)
      if (!follow || !wasActive || awaited === undefined) return
      await awaited
    }
  }

  /** Drops what the sandbox has said. */
  async remove(sandbox: string): Promise<void> {
    const book = this.#books.get(sandbox)
    if (book !== undefined) {
      clearTimeout(book.timer)
      book.gone = true
      book.waiting = []
      this.#pending -= book.pending
      book.pending = 0
      this.#books.delete(sandbox)
      for (const wake of book.wake) wake()
      await book.writing
    }
    for (const age of [0, 1]) await rm(this.#file(sandbox, age), { force: true })
  }

  /** Drops what all others have said: a crash may have parted files from their sandboxes. To be called before anything is written. */
  async keepOnly(isThere: (sandbox: string) => boolean): Promise<void> {
    for (const file of await readdir(this.#directory)) {
      const sandbox = file.slice(0, file.indexOf('.'))
      const isOwn = isId(sandbox) && [0, 1].some((age) => this.#file(sandbox, age) === join(this.#directory, file))
      if (isOwn && !isThere(sandbox)) await rm(join(this.#directory, file), { force: true })
    }
  }

  async close(): Promise<void> {
    for (const [sandbox, book] of this.#books) {
      await this.#flush(sandbox, book)
      clearTimeout(book.timer)
    }
  }

  #file(sandbox: string, age: number): string {
    return join(this.#directory, age === 0 ? `${sandbox}.jsonl` : `${sandbox}.${age}.jsonl`)
  }

  #book(sandbox: string): Book {
    const known = this.#books.get(sandbox)
    if (known !== undefined) return known
    const book: Book = {
      bytes: -1,
      generation: 0,
      waiting: [],
      pending: 0,
      rest: Buffer.alloc(0),
      taken: 0,
      dropped: 0,
      failing: false,
      writing: Promise.resolve(),
      active: new Set(),
      wake: new Set(),
      ends: new Map(),
      gone: false,
    }
    this.#books.set(sandbox, book)
    return book
  }

  /** How many characters of one sandbox may wait before its output is waited for. */
  #most(): number {
    return this.#pending > PENDING_IN_ALL ? 0 : PENDING
  }

  #hold(book: Book, characters: number): void {
    book.pending += characters
    this.#pending += characters
  }

  #flush(sandbox: string, book: Book): Promise<void> {
    clearTimeout(book.timer)
    book.timer = undefined
    book.writing = book.writing.then(() => this.#writeAll(sandbox, book))
    return book.writing
  }

  /** All that waits, unless the disk takes no more: then it is tried again later. */
  async #writeAll(sandbox: string, book: Book): Promise<void> {
    try {
      while (!book.gone) {
        if (book.rest.length === 0) {
          if (book.waiting.length === 0 && book.dropped > 0) {
            const text = `[${book.dropped} entries were dropped: there was no room on the disk]`
            const line = lineOf({ source: 'lifecycle', text })
            book.dropped = 0
            book.waiting.push(line)
            this.#hold(book, line.length)
          }
          const text = book.waiting.join('')
          book.waiting = []
          book.rest = Buffer.from(text)
          book.taken = text.length
        }
        if (book.rest.length === 0) return
        await this.#write(sandbox, book)
        if (book.gone) return
        book.failing = false
        this.#hold(book, -book.taken)
        book.taken = 0
        for (const wake of book.wake) wake()
      }
    } catch (thrown) {
      if (!book.failing) this.#log('warn', 'logs.write.failed', { sandbox, error: IceboxError.from(thrown).message })
      book.failing = true
      book.timer ??= setTimeout(() => this.#flush(sandbox, book), RETRY_MS).unref()
    }
  }

  async #write(sandbox: string, book: Book): Promise<void> {
    const file = this.#file(sandbox, 0)
    if (book.bytes < 0) book.bytes = await mendedSize(file)
    // Never within an entry.
    if (!book.failing && book.bytes > 0 && book.bytes + book.rest.length > FILE_BYTES) {
      await rename(file, this.#file(sandbox, 1))
      book.generation += 1
      book.bytes = 0
    }
    const handle = await open(file, 'a', 0o600)
    try {
      while (book.rest.length > 0) {
        const { bytesWritten } = await handle.write(book.rest)
        book.rest = book.rest.subarray(bytesWritten)
        book.bytes += bytesWritten
      }
    } finally {
      await handle.close()
    }
  }
}

const lineOf = (entry: NewEntry): string => `${JSON.stringify({ at: new Date().toISOString(), ...entry })}\n`

/** Resolves at the next entry, or when the signal aborts. */
function woken(book: Book, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      book.wake.delete(done)
      signal?.removeEventListener('abort', done)
      resolve()
    }
    book.wake.add(done)
    signal?.addEventListener('abort', done)
  })
}

/** The size of the file, whose last line a crash may have cut: then it is ended, and reads as nothing. */
async function mendedSize(file: string): Promise<number> {
  const size = (await stat(file).catch(() => undefined))?.size ?? 0
  if (size === 0) return 0
  const handle = await open(file, 'r')
  try {
    const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, size - 1)
    if (buffer[0] === 0x0a) return size
  } finally {
    await handle.close()
  }
  await appendFile(file, '\n')
  return size + 1
}

/** What stands in the file from the offset on; nothing of one that is not there. */
async function readFrom(file: string, offset: number): Promise<string> {
  const handle = await open(file, 'r').catch(() => undefined)
  if (handle === undefined) return ''
  return Buffer.concat(await Array.fromAsync(handle.createReadStream({ start: offset }))).toString()
}

function* entriesOf(text: string): Generator<LogEntry> {
  for (const line of text.split('\n')) {
    if (line === '') continue
    let content: unknown
    try {
      content = JSON.parse(line)
    } catch {
      continue
    }
    const entry = LogEntry.safeParse(content)
    if (entry.success) yield entry.data
  }
}
