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
  /** Resumed by a use of it. */
  wakes: boolean
  /** When it is paused by itself. */
  ends: number
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
  /** By key the sandbox of every create. */
  readonly #made = new Map<string, string>()
  readonly #gone: string[] = []
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
    if (machine.wakes) wake(machine)
    if (machine.paused) return WRONG_STATE
    machine.writing.set(asked.value, asked.file)
    return undefined
  }

  act(asked: Invocation, now: number): Answer {
    switch (asked.op) {
      case 'create': {
        const made = this.#made.get(asked.key)
        if (made !== undefined) return this.machines.has(made) ? { is: 'ok', sandbox: made } : KEY_USED
        const content = asked.from === undefined ? EMPTY : this.#snapshots.get(asked.from)
        if (content === undefined) return NOT_FOUND
        const sandbox = this.#add(asked, content, now)
        this.#made.set(asked.key, sandbox)
        return { is: 'ok', sandbox }
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
      events: Object.fromEntries([
        ...sandboxes.map(({ id, state }) => [id, state.toLowerCase()]),
        ...this.#gone.map((id) => [id, 'deleted']),
      ]),
      usage: this.#gone.map((sandbox) => ({ sandbox, runningSeconds: 0 })),
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
    if (machine.wakes && (asked.op === 'read' || asked.op === 'count')) wake(machine)
    if (machine.paused === (asked.op !== 'resume') && asked.op !== 'delete') return WRONG_STATE
    switch (asked.op) {
      case 'delete':
        this.machines.delete(machine.id)
        this.#gone.push(machine.id)
        return DONE
      case 'renew':
        machine.ends = Infinity
        return DONE
      case 'expire': {
        const ends = now + asked.after
        machine.ends = ends
        this.#timeline.at(ends, () => {
          if (machine.ends === ends) pause(machine)
        })
        return DONE
      }
      case 'pause':
        pause(machine)
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
        const child = { key: asked.key, wakes: machine.wakes }
        const children = Array.from({ length: asked.count }, () => this.#add(child, content, now))
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

  #add(
    { key, wakes = false }: { key: string; wakes?: boolean | undefined },
    { files, writing }: Content,
    now: number,
  ): string {
    const id = this.#next('box')
    const machine = { id, key, wakes, paused: false, ends: Infinity, files: new Map(files), writing: new Map(writing) }
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
const KEY_USED: Answer = { is: 'refused', code: 'Conflict' }
const UNDER_WAY: Answer = { is: 'refused', code: 'Conflict' }
const PROCESS_MS = 7
/** The most by which something may come about after the client was told that the connection broke. */
const LATE_MS = 40
/** The most that a time lasts that ends within the history. */
const MOST_TIME_MS = 60

function pause(machine: Machine): void {
  machine.paused = true
  machine.ends = Infinity
}

function wake(machine: Machine): void {
  machine.paused = false
}

const contentOf = ({ files, writing }: Machine): Content => ({ files: new Map(files), writing: new Map(writing) })

/** The history that clients with these wishes have of a correct system, and a census when all is over. */
export function simulate(wishes: readonly Wish[], files: readonly string[]): Operation[] {
  const timeline = new Timeline()
  const system = new System(timeline)
  const history: Operation[] = []
  const sandboxes: string[] = []
  const snapshots: string[] = []
  const creates: Extract<Invocation, { op: 'create' }>[] = []
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
    if (verb === 'create') {
      const again = pick % 4 === 3 ? creates[pick % creates.length] : undefined
      if (again !== undefined) return { ...again, client }
      const from = pick % 2 === 0 && snapshot !== undefined ? { from: snapshot } : {}
      const create = { op: verb, client, key, ...from, wakes: pick % 3 === 0 }
      creates.push(create)
      return create
    }
    if (verb === 'drop') return snapshot === undefined ? undefined : { op: verb, client, snapshot }
    if (sandbox === undefined) return undefined
    if (verb === 'fork') return { op: verb, client, key, sandbox, count: 1 + (pick % 3) }
    if (verb === 'write') return { op: verb, client, sandbox, file, value: `value${number}` }
    if (verb === 'read') return { op: verb, client, sandbox, file }
    if (verb === 'expire') return { op: verb, client, sandbox, after: 1 + (pick % MOST_TIME_MS) }
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
    last = Math.max(last, end + LATE_MS + Math.max(PROCESS_MS, MOST_TIME_MS))
    timeline.at(begin, () => {
      const asked = invocation(wish)
      if (asked === undefined) return go(queue, index + 1, begin)
      const subject = asked.op === 'pause' || asked.op === 'resume' ? asked.sandbox : undefined
      // A use that wakes a sandbox is over with its connection, and so is what sets a time.
      const isLate = wish.broken === 'late' && asked.op !== 'read' && asked.op !== 'count' && asked.op !== 'renew'
      const moment = isLate ? end + (wish.pick % LATE_MS) : begin + wish.acting
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
