/** One structured line per operation or transition. */
export type Log = (level: 'info' | 'warn' | 'error', event: string, facts: Record<string, unknown>) => void
