/** Stands for all values of a label beyond those that are shown. No project, phase or state is called so. */
export const OTHER = '_other'

/** The first values of a label that come, up to a number; each further one is `_other`. Every value is a series that lives as long as the server. */
export class BoundedLabel {
  readonly #known = new Set<string>()
  readonly #limit: number

  constructor(limit: number) {
    this.#limit = limit
  }

  of(value: string): string {
    if (this.#known.has(value)) return value
    if (this.#known.size >= this.#limit) return OTHER
    this.#known.add(value)
    return value
  }
}

export interface Share {
  project: string
  state: string
  count: number
}

/** How many there are by project and state: of the projects that have most, and of all others together. Shares of none are left out. */
export function countByProject(all: Iterable<Share>, projects: number): Share[] {
  const totals = new Map<string, number>()
  const counts = new Map<string, Share>()
  const add = (into: Map<string, Share>, { project, state, count }: Share) => {
    const key = `${project} ${state}`
    const share = into.get(key) ?? { project, state, count: 0 }
    share.count += count
    into.set(key, share)
  }
  for (const share of all) {
    if (share.count === 0) continue
    totals.set(share.project, (totals.get(share.project) ?? 0) + share.count)
    add(counts, share)
  }
  const largest = [...totals].toSorted(([, a], [, b]) => b - a).slice(0, projects)
  const shown = new Set(largest.map(([project]) => project))
  const shares = new Map<string, Share>()
  for (const share of counts.values()) add(shares, shown.has(share.project) ? share : { ...share, project: OTHER })
  return [...shares.values()]
}
