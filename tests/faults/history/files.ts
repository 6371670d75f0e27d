import { type Finding, when } from './finding.ts'
import { effectEnd, type Lineage } from './lineage.ts'
import { type History, ofVerb } from './record.ts'
import { checkRegister, type Read, type Write } from './register.ts'

/** Every file of every sandbox is a register, and what a sandbox begins with is a read of the one that it was made from. */
export function checkFiles(history: History, lineage: Lineage): Finding[] {
  const files = new Set([...ofVerb(history, 'write'), ...ofVerb(history, 'read')].map(({ file }) => file))
  return [...files].flatMap((file) => checkFile(history, lineage, file))
}

function checkFile(history: History, lineage: Lineage, file: string): Finding[] {
  const findings: Finding[] = []
  const writesOf = Map.groupBy(
    ofVerb(history, 'write').filter((write) => write.file === file && write.outcome.is !== 'refused'),
    ({ sandbox }) => sandbox,
  )
  const readsOf = Map.groupBy(
    ofVerb(history, 'read').flatMap(({ outcome, ...read }) =>
      read.file === file && outcome.is === 'ok' ? [{ ...read, value: outcome.value }] : [],
    ),
    ({ sandbox }) => sandbox,
  )
  /** By clients, and by processes with which it was made. */
  const writes = new Map<string, Write[]>()
  const writesTo = (id: string): Write[] => {
    const known = writes.get(id)
    if (known !== undefined) return known
    const own = (writesOf.get(id) ?? []).map((write): Write => ({ ...write, end: effectEnd(write) }))
    const cut = lineage.members.get(id)?.cut
    // A write that is under way goes on in what is made of the sandbox meanwhile, memory and processes and all.
    const passed = cut === undefined ? [] : writesTo(cut.source).filter((write) => isUnderWay(write, cut))
    const all = [
      ...own,
      ...passed.map(({ value }): Write => ({ value, begin: cut?.begin ?? 0, end: Number.POSITIVE_INFINITY })),
    ]
    writes.set(id, all)
    return all
  }
  const begun = new Map<string, { value: string | null } | undefined>()
  const beginningOf = (id: string): { value: string | null } | undefined => {
    if (begun.has(id)) return begun.get(id)
    const cut = lineage.members.get(id)?.cut
    const beginning =
      cut === undefined ? { value: null } : inherited(id, new Set(writesTo(id).map(({ value }) => value)))
    begun.set(id, beginning)
    return beginning
  }
  /** What it was seen to hold that was not written to it. */
  const inherited = (id: string, written: ReadonlySet<string | null>): { value: string | null } | undefined => {
    const foreign = readsTo(id).filter(({ value }) => !written.has(value))
    const [first] = foreign
    const other = foreign.find(({ value }) => value !== first?.value)
    if (first !== undefined && other !== undefined)
      findings.push({
        fault: 'mixed',
        text: `${nameOf(id)} held ${JSON.stringify(first.value)} at ${when(first)} and ${JSON.stringify(other.value)} at ${when(other)}, neither of which was written to it: it can have begun with only one of them`,
      })
    return first && { value: first.value }
  }
  const reads = new Map<string, Read[]>()
  const readsTo = (id: string): Read[] => {
    const known = reads.get(id)
    if (known !== undefined) return known
    const all: Read[] = [...(readsOf.get(id) ?? [])]
    reads.set(id, all)
    for (const { cut, children } of lineage.cutsOf(id)) {
      const beginnings = children.flatMap((child) => {
        const beginning = beginningOf(child)
        return beginning === undefined ? [] : [{ child, ...beginning }]
      })
      const [first] = beginnings
      const other = beginnings.find(({ value }) => value !== first?.value)
      if (first !== undefined && other !== undefined)
        findings.push({
          fault: 'mixed',
          text: `${nameOf(first.child)} began with ${JSON.stringify(first.value)} and ${nameOf(other.child)} with ${JSON.stringify(other.value)}, but they were made of one moment of ${id}`,
        })
      if (first !== undefined) all.push({ value: first.value, begin: cut.begin, end: cut.end })
    }
    return all
  }
  const nameOf = (id: string) => `${file} of ${id}`

  for (const id of lineage.members.keys()) {
    const beginning = beginningOf(id)
    const first: Write[] = beginning === undefined ? [] : [{ value: beginning.value, begin: -Infinity, end: -Infinity }]
    findings.push(...checkRegister(nameOf(id), [...first, ...writesTo(id)], withoutForeign(readsTo(id), id)))
  }
  return findings

  /** Without what was found to be of another beginning, which is said already. */
  function withoutForeign(all: Read[], id: string): Read[] {
    const beginning = beginningOf(id)
    const cut = lineage.members.get(id)?.cut
    if (cut === undefined) return all
    const written = new Set(writesTo(id).map(({ value }) => value))
    return all.filter(({ value }) => written.has(value) || value === beginning?.value)
  }
}

const isUnderWay = (write: Write, cut: { begin: number; end: number }): boolean =>
  write.begin <= cut.end && write.end >= cut.begin
