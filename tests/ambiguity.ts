import { type CharSet, JS } from 'refa'

/**
 * Whether a regular expression can match some text in a number of ways that doubles with its length: then it tries all of them before it gives
 * up. It can when a loop comes back to where it was by two ways over the same text, which its position automaton (Glushkov) shows: from a pair of
 * equal positions to a pair of different ones and back.
 *
 * Assertions and references count as empty, and repetitions with a bound as one, so it says no of some that can.
 */
export function isExponential(literal: { source: string; flags: string }): boolean {
  const { expression } = JS.Parser.fromLiteral(literal).parse()
  const automaton = new Positions()
  automaton.alternatives(expression.alternatives)
  return automaton.isAmbiguous()
}

type Element = ReturnType<JS.Parser['parse']>['expression']['alternatives'][number]['elements'][number]
type Alternatives = readonly { readonly elements: readonly Element[] }[]

/** A part: the positions it may begin and end with, each as often as there are ways to, and whether it may be empty. */
interface Part {
  first: number[]
  last: number[]
  empty: boolean
}

class Positions {
  readonly #characters: CharSet[] = []
  /** By position, those that may come next, each as often as there are ways to it. */
  readonly #follow: number[][] = []

  alternatives(all: Alternatives): Part {
    const parts = all.map(({ elements }) => this.#sequence(elements))
    return {
      first: parts.flatMap(({ first }) => first),
      last: parts.flatMap(({ last }) => last),
      empty: parts.some(({ empty }) => empty),
    }
  }

  #sequence(elements: readonly Element[]): Part {
    let before: Part = { first: [], last: [], empty: true }
    for (const element of elements) {
      const part = this.#element(element)
      this.#connect(before.last, part.first)
      before = {
        first: before.empty ? [...before.first, ...part.first] : before.first,
        last: part.empty ? [...before.last, ...part.last] : part.last,
        empty: before.empty && part.empty,
      }
    }
    return before
  }

  #element(element: Element): Part {
    if (element.type === 'CharacterClass') {
      const position = this.#characters.push(element.characters) - 1
      this.#follow.push([])
      return { first: [position], last: [position], empty: false }
    }
    if (element.type === 'Alternation') return this.alternatives(element.alternatives)
    if (element.type !== 'Quantifier') return { first: [], last: [], empty: true }
    const part = this.alternatives(element.alternatives)
    if (element.max === Number.POSITIVE_INFINITY) this.#connect(part.last, part.first)
    return { ...part, empty: part.empty || element.min === 0 }
  }

  #connect(from: readonly number[], to: readonly number[]): void {
    for (const position of from) this.#follow[position]?.push(...to)
  }

  isAmbiguous(): boolean {
    const all = this.#characters.map((_, position) => position)
    return all.some((start) => {
      const loop = all.filter((other) => this.#leads(start, other) && this.#leads(other, start))
      return this.#hasTwoWays(start, new Set(loop))
    })
  }

  #leads(from: number, to: number): boolean {
    const seen = new Set<number>()
    const pending = [...(this.#follow[from] ?? [])]
    for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
      if (at === to) return true
      if (seen.has(at)) continue
      seen.add(at)
      pending.push(...(this.#follow[at] ?? []))
    }
    return false
  }

  /** Whether two walks over the same text go apart at the position and meet there again. */
  #hasTwoWays(start: number, loop: ReadonlySet<number>): boolean {
    const seen = new Set<string>()
    const pending: [one: number, other: number, apart: boolean][] = [[start, start, false]]
    for (let pair = pending.pop(); pair !== undefined; pair = pending.pop()) {
      const [one, other, apart] = pair
      for (const [index, next] of (this.#follow[one] ?? []).entries())
        for (const [otherIndex, otherNext] of (this.#follow[other] ?? []).entries()) {
          if (!loop.has(next) || !loop.has(otherNext) || !this.#overlap(next, otherNext)) continue
          // Two ways to one position are two ways as well.
          const parts = apart || next !== otherNext || (one === other && index !== otherIndex)
          if (parts && next === start && otherNext === start) return true
          const name = `${next} ${otherNext} ${parts}`
          if (seen.has(name)) continue
          seen.add(name)
          pending.push([next, otherNext, parts])
        }
    }
    return false
  }

  #overlap(one: number, other: number): boolean {
    const [left, right] = [this.#characters[one], this.#characters[other]]
    return left !== undefined && right !== undefined && !left.isDisjointWith(right)
  }
}
