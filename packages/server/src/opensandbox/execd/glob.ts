import { IceboxError } from '@icebox/model'

/** Characters of a pattern: what a path costs grows with it. */
const LONGEST_PATTERN = 256

type Test = (character: string) => boolean

/** One step of the automaton: takes a character, goes on in two places at once, or is the end. */
type Step =
  /** `first`: nothing of the name is before it in the pattern, so that a dot may begin the name. */
  | { kind: 'literal'; character: string; first: boolean }
  /** Never a `/`, and no dot that begins a name. */
  | { kind: 'wild'; test: Test }
  | { kind: 'fork'; to: number[] }
  | { kind: 'end' }

/**
 * A pattern as shells have them, for paths relative to some root: `*` and `?` within a name, `[a-z]` and `[!a-z]`, `{this,that}`, `**` for any
 * directories, a backslash before a character that means itself. Names that begin with a dot are matched by a dot alone.
 *
 * It becomes an automaton that is in all its possible states at once and never goes back in the path. So a path costs at most its length times
 * that of the pattern, whatever the two are: both are chosen by others.
 */
export function globMatcher(pattern: string): (path: string) => boolean {
  if (pattern.length > LONGEST_PATTERN)
    throw new IceboxError('InvalidArgument', `the pattern is longer than ${LONGEST_PATTERN} characters`)
  const steps = new Compiler(pattern).compile()
  /** In which round a step was last entered. */
  const entered = new Uint32Array(steps.length)
  let round = 0

  /** Enters a step and all that follow it without a character. */
  const enter = (first: number, states: number[]): void => {
    const pending = [first]
    for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
      if (entered[at] === round) continue
      entered[at] = round
      const step = steps[at]
      if (step?.kind === 'fork') pending.push(...step.to)
      else states.push(at)
    }
  }

  return (path) => {
    entered.fill(0)
    round = 1
    let states: number[] = []
    enter(0, states)
    let beginsName = true
    for (const character of path) {
      round++
      const hidden = beginsName && character === '.'
      const next: number[] = []
      for (const at of states) {
        const step = steps[at]
        const takes =
          step?.kind === 'literal'
            ? step.character === character && (step.first || !hidden)
            : step?.kind === 'wild' && character !== '/' && !hidden && step.test(character)
        if (takes) enter(at + 1, next)
      }
      if (next.length === 0) return false
      states = next
      beginsName = character === '/'
    }
    return states.some((at) => steps[at]?.kind === 'end')
  }
}

const any: Test = () => true

class Compiler {
  readonly #characters: string[]
  /** Of each brace that opens alternatives, where it closes. */
  readonly #closes: ReadonlyMap<number, number>
  readonly #steps: Step[] = []
  /** Whether what comes next may be the first of a name. */
  #first = true

  constructor(pattern: string) {
    this.#characters = [...pattern]
    this.#closes = this.#alternatives()
  }

  compile(): Step[] {
    this.#sequence(0, this.#characters.length)
    this.#steps.push({ kind: 'end' })
    return this.#steps
  }

  #sequence(from: number, to: number): void {
    let at = from
    while (at < to) at = this.#item(at, to)
  }

  /** Compiles what begins there and gives where it ends. */
  #item(at: number, to: number): number {
    const characters = this.#characters
    const character = characters[at] ?? ''
    const literal = (meant: string, length: number) => {
      this.#literal(meant)
      return at + length
    }
    switch (character) {
      case '\\':
        return at + 1 < to ? literal(characters[at + 1] ?? '', 2) : literal(character, 1)
      case '?':
        this.#wild(any)
        return at + 1
      case '*':
        return this.#stars(at, to)
      case '[': {
        const found = classAt(characters, at, to)
        if (found === undefined) return literal(character, 1)
        this.#wild(found.test)
        return found.end
      }
      case '{': {
        const close = this.#closes.get(at)
        if (close === undefined || close >= to) return literal(character, 1)
        this.#either(at + 1, close)
        return close + 1
      }
      default:
        return literal(character, 1)
    }
  }

  #stars(at: number, to: number): number {
    let end = at
    while (end < to && this.#characters[end] === '*') end++
    const beginsName = at === 0 || this.#characters[at - 1] === '/'
    const next = this.#characters[end]
    if (end - at === 2 && beginsName && next === '/') {
      // Any number of names, each with its slash: skip, or take one and come back.
      const begin = this.#fork()
      this.#manyOf(any)
      this.#literal('/')
      this.#forkTo(begin)
      this.#patch(begin)
      return end + 1
    }
    if (end - at === 2 && beginsName && end === this.#characters.length) {
      const begin = this.#steps.length
      this.#manyOf(any)
      const more = this.#fork()
      this.#literal('/')
      this.#forkTo(begin)
      this.#patch(more)
      return end
    }
    // A whole name has at least one character.
    const whole = beginsName && (next === '/' || end === this.#characters.length)
    if (whole) this.#manyOf(any)
    else {
      const begin = this.#fork()
      this.#wild(any)
      this.#forkTo(begin)
      this.#patch(begin)
    }
    return end
  }

  #literal(character: string): void {
    this.#steps.push({ kind: 'literal', character, first: this.#first })
    this.#first = character === '/'
  }

  #wild(test: Test): void {
    this.#steps.push({ kind: 'wild', test })
    this.#first = false
  }

  /** One or more. */
  #manyOf(test: Test): void {
    const begin = this.#steps.length
    this.#wild(test)
    this.#steps.push({ kind: 'fork', to: [begin, begin + 2] })
  }

  #either(from: number, close: number): void {
    const to: number[] = []
    this.#steps.push({ kind: 'fork', to })
    const ends: number[][] = []
    const first = this.#first
    const after = new Set<boolean>()
    let begin = from
    for (let at = from; at <= close; at = this.#after(at)) {
      if (at < close && this.#characters[at] !== ',') continue
      to.push(this.#steps.length)
      this.#first = first
      this.#sequence(begin, at)
      after.add(this.#first)
      const end: number[] = []
      this.#steps.push({ kind: 'fork', to: end })
      ends.push(end)
      begin = at + 1
    }
    this.#first = after.has(true)
    for (const end of ends) end.push(this.#steps.length)
  }

  /** Goes on with what follows, and with what `#patch` is called before. */
  #fork(): number {
    const at = this.#steps.length
    this.#steps.push({ kind: 'fork', to: [at + 1] })
    return at
  }
  #forkTo(at: number): void {
    this.#steps.push({ kind: 'fork', to: [at] })
  }
  #patch(fork: number): void {
    const step = this.#steps[fork]
    if (step?.kind === 'fork') step.to.push(this.#steps.length)
  }

  /** Where the next item of a sequence begins. */
  #after(at: number): number {
    const character = this.#characters[at]
    if (character === '\\') return at + 2
    if (character === '[') return classAt(this.#characters, at, this.#characters.length)?.end ?? at + 1
    return (this.#closes.get(at) ?? at) + 1
  }

  /** The braces that have a comma of their own and an end. */
  #alternatives(): ReadonlyMap<number, number> {
    const closes = new Map<number, number>()
    const open: { at: number; comma: boolean }[] = []
    const characters = this.#characters
    for (let at = 0; at < characters.length; at++) {
      const character = characters[at]
      if (character === '\\') at++
      else if (character === '[') at = (classAt(characters, at, characters.length)?.end ?? at + 1) - 1
      else if (character === '{') open.push({ at, comma: false })
      else if (character === ',') {
        const last = open.at(-1)
        if (last !== undefined) last.comma = true
      } else if (character === '}') {
        const last = open.pop()
        if (last?.comma) closes.set(last.at, at)
      }
    }
    return closes
  }
}

/** Characters in brackets, and where they end; undefined when they do not end. */
function classAt(characters: readonly string[], open: number, to: number): { test: Test; end: number } | undefined {
  let at = open + 1
  const negated = characters[at] === '!' || characters[at] === '^'
  if (negated) at++
  const ranges: [from: string, to: string][] = []
  for (let first = true; at < to; first = false) {
    if (characters[at] === ']' && !first) {
      const test: Test = (character) =>
        ranges.some(([from, last]) => from <= character && character <= last) !== negated
      return { test, end: at + 1 }
    }
    if (characters[at] === '\\' && at + 1 < to) at++
    const from = characters[at] ?? ''
    const isRange = characters[at + 1] === '-' && at + 2 < to && characters[at + 2] !== ']'
    ranges.push([from, isRange ? (characters[at + 2] ?? '') : from])
    at += isRange ? 3 : 1
  }
  return undefined
}
