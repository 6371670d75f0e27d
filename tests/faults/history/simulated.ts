import { type Invocation, Operation, type Seen } from './record.ts'

/** What a client of the simulated system is about to do. `pick` chooses among what there is, modulo. */
export interface Wish {
  client: number
  verb: Invocation['op']
  pick: number
  /** Milliseconds: until it asks, from then until the system acts, from then until the answer comes. */
  idle: number
  acting: number
  answering: number
  /** Whether the connection breaks, and when: before the system acts, after, or so that it acts later still. */
  broken: 'no' | 'request' | 'answer' | 'late'
}

type Answer = { is: 'ok'; [result: string]: unknown } | { is: 'refused' | 'unknown'; code: string }

/** What a snapshot holds: files, and processes that are about to write. */
interface Content {
  files: ReadonlyMap<string, string>
  writing: ReadonlyMap<string, string>
}

interface Machine {
  id: string
  key: string
  paused: boolean
  files: Map<string, string>
  /** By value the file that a process is about to write it to. */
  writing: Map<string, string>
}

/** Things that happen, one after the other in the order of their times. */
class Timeline {
  readonly #events: { at: number; run: () => void }[] = []

  at(at: number, run: () => void): void {
    const index = this.#events.findIndex((event) => event.at > at)
    this.#events.splice(index === -1 ? this.#events.length : index, 0, { at, run })
  }

  play(): void {
    for (let event = this.#events.shift(); event !== undefined; event = this.#events.shift()) event.run()
  }
}

/** Icebox as it should be: everything happens whole, at one moment. */
class System {
  readonly machines = new Map<string, Machine>()
  readonly #snapshots = new Map<string, Content>()
  readonly #timeline: Timeline
  #number = 0

  constructor(timeline: Timeline) {
    this.#timeline = timeline
  }

  /**
   * A write is done by a process that is started first, if it can be; in the meantime snapshots are taken of that too. Gives the
   * answer when there is no more to come.
   */
  begin(asked: Invocation): Answer | undefined {
    if (asked.op !== 'write') return undefined
    const machine = this.machines.get(asked.sandbox)
    if (machine === undefined) return NOT_FOUND
    if (machine.paused) return WRONG_STATE
    machine.writing.set(asked.value, asked.file)
    return undefined
  }

  act(asked: Invocation, now: number): Answer {
    switch (asked.op) {
      case 'create': {
        const content = asked.from === undefined ? EMPTY : this.#snapshots.get(asked.from)
        return content === undefined ? NOT_FOUND : { is: 'ok', sandbox: this.#add(asked.key, content, now) }
      }
      case 'list':
        return { is: 'ok', sandboxes: this.list() }
      case 'drop':
        return this.#snapshots.delete(asked.snapshot) ? DONE : NOT_FOUND
      default:
        return this.#actOn(this.machines.get(asked.sandbox), asked, now)
    }
  }

  list(): Seen[] {
    return [...this.machines.values()].map(({ id, key, paused }) => ({
      ...{ id, key, state: paused ? 'Paused' : 'Running' },
      ...(paused ? { pausedIn: `pause-${id}` } : {}),
    }))
  }

  census(client: number, now: number): Operation {
    const sandboxes = this.list()
    const hidden = sandboxes.flatMap(({ pausedIn }) => (pausedIn === undefined ? [] : [pausedIn]))
    const containers = sandboxes.flatMap(({ id, state }) => (state === 'Running' ? [`run-${id}`] : []))
    const taken = [...this.#snapshots.keys()]
    return Operation.parse({
      ...{ op: 'census', client, begin: now, end: now, sandboxes },
      snapshots: [
        ...taken.map((id) => ({ id, hidden: false })),
        ...hidden.map((id) => ({ id, hidden: true })),
        { id: 'template', hidden: true, template: 'base' },
      ],
      node: {
        slots: ['slot'],
        containers: { machines: containers, cgroups: ['slot', ...containers] },
        snapshots: [...taken, ...hidden, 'template'],
        temporary: [],
      },
    })
  }

  #actOn(
    machine: Machine | undefined,
    asked: Exclude<Invocation, { op: 'create' | 'list' | 'drop' }>,
    now: number,
  ): Answer {
    // Its process stands still in what is paused, or has gone with it.
    if (asked.op === 'write' && machine?.paused !== false) return CUT
    if (machine === undefined) return NOT_FOUND
    if (machine.paused === (asked.op !== 'resume') && asked.op !== 'delete' && asked.op !== 'renew') return WRONG_STATE
    switch (asked.op) {
      case 'delete':
        this.machines.delete(machine.id)
        return DONE
      case 'renew':
        return DONE
      case 'pause':
        machine.paused = true
        return DONE
      case 'resume':
        machine.paused = false
        return DONE
      case 'write':
        machine.writing.delete(asked.value)
        machine.files.set(asked.file, asked.value)
        return DONE
      case 'read':
        return { is: 'ok', value: machine.files.get(asked.file) ?? null }
      case 'count':
        // One clock for all never goes back, whatever was made from what.
        return { is: 'ok', process: 'counter', count: Math.floor(now) }
      case 'fork': {
        const content = contentOf(machine)
        const children = Array.from({ length: asked.count }, () => this.#add(asked.key, content, now))
        return { is: 'ok', children }
      }
      case 'snapshot': {
        const snapshot = this.#next('snap')
        this.#snapshots.set(snapshot, contentOf(machine))
        return { is: 'ok', snapshot }
      }
      default:
        return asked satisfies never
    }
  }

  #add(key: string, { files, writing }: Content, now: number): string {
    const id = this.#next('box')
    const machine = { id, key, paused: false, files: new Map(files), writing: new Map(writing) }
    this.machines.set(id, machine)
    for (const [value, file] of writing)
      this.#timeline.at(now + PROCESS_MS, () => {
        if (!machine.paused && machine.writing.delete(value)) machine.files.set(file, value)
      })
    return id
  }

  #next(what: string): string {
    this.#number += 1
    return `${what}${this.#number}`
  }
}

const EMPTY: Content = { files: new Map(), writing: new Map() }
const DONE: Answer = { is: 'ok' }
const NOT_FOUND: Answer = { is: 'refused', code: 'NotFound' }
const WRONG_STATE: Answer = { is: 'refused', code: 'InvalidState' }
const CUT: Answer = { is: 'unknown', code: 'GuestFailed' }
const UNDER_WAY: Answer = { is: 'refused', code: 'Conflict' }
const PROCESS_MS = 7
/** The most by which something may come about after the client was told that the connection broke. */
const LATE_MS = 40

const contentOf = ({ files, writing }: Machine): Content => ({ files: new Map(files), writing: new Map(writing) })

/** The history that clients with these wishes have of a correct system, and a census when all is over. */
export function simulate(wishes: readonly Wish[], files: readonly string[]): Operation[] {
  const timeline = new Timeline()
  const system = new System(timeline)
  const history: Operation[] = []
  const sandboxes: string[] = []
  const snapshots: string[] = []
  /** Sandboxes that a pause or resume is to come about in whose client has gone. */
  const late = new Set<string>()
  let number = 0
  let last = 0

  /** Of what its client knows; undefined when there is nothing of that kind. */
  const invocation = ({ client, verb, pick }: Wish): Invocation | undefined => {
    number += 1
    const key = `key${number}`
    const sandbox = sandboxes[pick % sandboxes.length]
    const snapshot = snapshots[pick % snapshots.length]
    const file = files[pick % files.length] ?? ''
    if (verb === 'list') return { op: verb, client }
    if (verb === 'create')
      return { op: verb, client, key, ...(pick % 2 === 0 && snapshot !== undefined ? { from: snapshot } : {}) }
    if (verb === 'drop') return snapshot === undefined ? undefined : { op: verb, client, snapshot }
    if (sandbox === undefined) return undefined
    if (verb === 'fork') return { op: verb, client, key, sandbox, count: 1 + (pick % 3) }
    if (verb === 'write') return { op: verb, client, sandbox, file, value: `value${number}` }
    if (verb === 'read') return { op: verb, client, sandbox, file }
    return { op: verb, client, sandbox }
  }

  const learn = (asked: Invocation, answer: Answer): void => {
    const told = Operation.parse({ ...asked, begin: 0, end: 0, outcome: answer })
    if (!('outcome' in told) || told.outcome.is !== 'ok') return
    if (told.op === 'create') sandboxes.push(told.outcome.sandbox)
    if (told.op === 'fork') sandboxes.push(...told.outcome.children)
    if (told.op === 'snapshot') snapshots.push(told.outcome.snapshot)
    if (told.op === 'list') sandboxes.push(...told.outcome.sandboxes.map(({ id }) => id))
  }

  const go = (queue: readonly Wish[], index: number, now: number): void => {
    const wish = queue[index]
    if (wish === undefined) return
    const begin = now + 1 + wish.idle
    const end = begin + wish.acting + wish.answering
    last = Math.max(last, end + LATE_MS + PROCESS_MS)
    timeline.at(begin, () => {
      const asked = invocation(wish)
      if (asked === undefined) return go(queue, index + 1, begin)
      const subject = asked.op === 'pause' || asked.op === 'resume' ? asked.sandbox : undefined
      const moment = wish.broken === 'late' ? end + (wish.pick % LATE_MS) : begin + wish.acting
      let answer = wish.broken === 'request' ? undefined : system.begin(asked)
      if (wish.broken !== 'request' && answer === undefined) {
        // One change of state at a time: the others are refused.
        const refused = subject !== undefined && late.has(subject)
        if (wish.broken === 'late' && subject !== undefined && !refused) late.add(subject)
        timeline.at(moment, () => {
          const isMine = wish.broken === 'late' && !refused
          answer =
            refused || (subject !== undefined && !isMine && late.has(subject)) ? UNDER_WAY : system.act(asked, moment)
          if (isMine && subject !== undefined) late.delete(subject)
        })
      }
      timeline.at(end, () => {
        const outcome = wish.broken === 'no' && answer !== undefined ? answer : { is: 'unknown', code: 'Unavailable' }
        history.push(Operation.parse({ ...asked, begin, end, outcome }))
        const told = wish.broken === 'no' ? answer : undefined
        if (told !== undefined) timeline.at(end + 1, () => learn(asked, told))
        go(queue, index + 1, end)
      })
    })
  }
  for (const queue of Map.groupBy(wishes, ({ client }) => client).values()) go(queue, 0, 0)
  timeline.play()
  history.push(system.census(0, last + 1))
  return history
}
