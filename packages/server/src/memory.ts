import type { EventEmitter } from 'node:events'
import { Budget, Budgets, ITEM_BYTES, type Reservation } from '@icebox/model'

/** Bytes that the requests to the API may hold, and those to the guest services: neither takes the other's. */
const IN_ALL = 268_435_456
/** Bytes of those that one project or one sandbox may hold. */
const EACH = 67_108_864

/** What requests hold in memory until they are answered: bodies that are parsed, text that is collected. What passes through is not counted here. */
export class RequestMemory {
  readonly #budgets: Budgets

  /** `what`: whose budgets there are, such as `project`. */
  constructor(what: string, limits: { each: number; inAll: number } = { each: EACH, inAll: IN_ALL }) {
    const all = new Budget(`what requests of every ${what} hold in memory`, limits.inAll)
    this.#budgets = new Budgets((name) => `what requests of ${what} ${name} hold in memory`, limits.each, all)
  }

  /** Held for a request of that name, to be grown with what is kept for it. Given back once the response is over. */
  open(name: string, response: EventEmitter & { readonly destroyed: boolean }): Reservation {
    const held = this.#budgets.of(name).reserve(ITEM_BYTES)
    if (response.destroyed) held.release()
    else response.once('close', () => held.release())
    return held
  }
}
