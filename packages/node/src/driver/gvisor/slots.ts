import { newExecutionId } from '@icebox/model'
import type { Turns } from '../../turns.ts'
import type { Container } from './container.ts'

interface Shelf<Plan> {
  plan: Plan
  wanted: number
  ready: Container[]
  making: number
  waiting: { resolve: () => void; reject: (reason: unknown) => void }[]
}

/**
 * Containers created ahead, by the key of their spec. One that was taken is replaced while nothing else is to be done, and
 * there are never more than were asked for.
 */
export class Slots<Plan> {
  readonly #create: (id: string, plan: Plan, signal: AbortSignal) => Promise<Container>
  readonly #turns: Turns
  readonly #shelves = new Map<string, Shelf<Plan>>()
  readonly #closed = new AbortController()
  readonly #under = new Set<Promise<void>>()

  constructor(create: (id: string, plan: Plan, signal: AbortSignal) => Promise<Container>, turns: Turns) {
    this.#create = create
    this.#turns = turns
  }

  /** Keeps `count` slots from now on. Resolves once they are there; throws what kept one from being made. */
  async want(key: string, plan: Plan, count: number, signal: AbortSignal): Promise<void> {
    const shelf = this.#shelves.get(key) ?? { plan, wanted: 0, ready: [], making: 0, waiting: [] }
    this.#shelves.set(key, shelf)
    shelf.wanted = count
    await Promise.all(shelf.ready.splice(count).map((container) => container.destroy()))
    if (count === 0) this.#shelves.delete(key)
    if (shelf.ready.length >= count) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiter = { resolve, reject }
    shelf.waiting.push(waiter)
    const abandon = () => reject(signal.reason)
    signal.addEventListener('abort', abandon, { once: true })
    this.#refill(shelf)
    try {
      await promise
    } finally {
      signal.removeEventListener('abort', abandon)
      shelf.waiting = shelf.waiting.filter((other) => other !== waiter)
    }
  }

  /** Undefined when there is none. It is the taker's from now on. */
  async take(key: string): Promise<Container | undefined> {
    const shelf = this.#shelves.get(key)
    for (let container = shelf?.ready.shift(); shelf && container; container = shelf.ready.shift()) {
      this.#refill(shelf)
      if (await container.isAlive()) return container
      await container.destroy()
    }
    return undefined
  }

  /** Ends all slots. */
  async close(): Promise<void> {
    this.#closed.abort(new DOMException('the driver is closing', 'AbortError'))
    await Promise.allSettled(this.#under)
    const containers = [...this.#shelves.values()].flatMap(({ ready }) => ready)
    this.#shelves.clear()
    await Promise.all(containers.map((container) => container.destroy()))
  }

  #refill(shelf: Shelf<Plan>): void {
    while (!this.#closed.signal.aborted && shelf.ready.length + shelf.making < shelf.wanted) {
      shelf.making++
      const work: Promise<void> = this.#make(shelf).finally(() => this.#under.delete(work))
      this.#under.add(work)
    }
  }

  async #make(shelf: Shelf<Plan>): Promise<void> {
    const signal = this.#closed.signal
    try {
      const container = await this.#turns.run(() => this.#create(newExecutionId(), shelf.plan, signal), signal, true)
      shelf.making--
      if (signal.aborted || shelf.ready.length >= shelf.wanted) return await container.destroy()
      shelf.ready.push(container)
      if (shelf.ready.length >= shelf.wanted) for (const { resolve } of shelf.waiting) resolve()
    } catch (thrown) {
      shelf.making--
      // Not tried again before the next take or want: what keeps one from being made keeps the next one too.
      for (const { reject } of shelf.waiting) reject(thrown)
    }
  }
}
