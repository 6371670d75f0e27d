/** What a create asks for. Sent again it is the same request. */
export interface Wanted {
  key: string
  template: string
  /** A snapshot instead of the template. */
  from?: string
  /** Whether it is to be resumed by a use of it. */
  wakes: boolean
}

/** One of the APIs by which a client asks for what there is in all of them. Errors are `IceboxError` and `HalfDone`. */
export interface Way {
  /** Gives its id. */
  create(wanted: Wanted): Promise<string>
  pause(sandbox: string): Promise<void>
  resume(sandbox: string): Promise<void>
  /** It is paused in so many seconds. */
  endIn(sandbox: string, seconds: number): Promise<void>
  delete(sandbox: string): Promise<void>
  /** The text of a file; null: there is none. */
  read(sandbox: string, file: string): Promise<string | null>
  /** In place once it is whole. */
  upload(sandbox: string, file: string, lines: string[]): Promise<void>
  /** What the counting process says. */
  count(sandbox: string): Promise<string>
}

/** Seconds that every sandbox lives: longer than any load. */
export const LONG_SECONDS = 86_400
/** Nothing in this load may take so long: what does hangs. */
const CALL_MS = 120_000

export const call = () => ({ signal: AbortSignal.timeout(CALL_MS) })
