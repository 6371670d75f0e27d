/**
 * lost: acknowledged and not there. doubled: there more often than asked for. orphan: there, and nobody asked for it or it was
 * deleted. stale: an older content than what was acknowledged. mixed: a content that nobody wrote. state: paused or running where
 * the other was acknowledged, or failed. process: a process that is another one, or went back in time. account: events or usage
 * that tell something else.
 */
export type Fault = 'lost' | 'doubled' | 'orphan' | 'stale' | 'mixed' | 'state' | 'process' | 'account'

export interface Finding {
  fault: Fault
  /** What was found and what speaks against it. */
  text: string
}

export interface Span {
  begin: number
  end: number
}

const second = (milliseconds: number): string =>
  Number.isFinite(milliseconds) ? `${(milliseconds / 1000).toFixed(3)} s` : '?'
/** When, for people. */
export const when = ({ begin, end }: Span): string => `${second(begin)} to ${second(end)}`

/** Whether one was over before the other began. */
export const precedes = (one: Span, other: Span): boolean => one.end < other.begin
