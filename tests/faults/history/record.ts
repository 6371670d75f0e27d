import { z } from 'zod'

/** A sandbox as a list showed it. `key` is the metadata that its create or fork gave it. */
export const Seen = z.object({
  id: z.string(),
  key: z.string().optional(),
  state: z.string(),
  /** The snapshot of its last pause. */
  pausedIn: z.string().optional(),
})
export type Seen = z.infer<typeof Seen>

/**
 * What became of an operation. refused: an error that says that nothing was changed. unknown: the connection broke, or the
 * error leaves open how far it came.
 */
const outcome = <R extends z.ZodRawShape>(result: R) =>
  z.discriminatedUnion('is', [
    z.object({ is: z.literal('ok'), ...result }),
    z.object({ is: z.literal('refused'), code: z.string() }),
    z.object({ is: z.literal('unknown'), code: z.string() }),
  ])

/** Milliseconds of one clock: the invocation and its outcome. */
const times = { client: z.int(), begin: z.number(), end: z.number() }

/** One line of a history: an operation that a client asked for, or what was found on the machine when all was quiet. */
export const Operation = z.discriminatedUnion('op', [
  /**
   * `from` is a snapshot; without it the template. `wakes`: it is resumed by a use of it. Several with the same key are one request
   * that was sent again.
   */
  z.object({
    op: z.literal('create'),
    ...times,
    key: z.string(),
    from: z.string().optional(),
    wakes: z.boolean().optional(),
    outcome: outcome({ sandbox: z.string() }),
  }),
  /** `outcome.children` are those that run; of `count`, the others were refused or are unknown. */
  z.object({
    op: z.literal('fork'),
    ...times,
    key: z.string(),
    sandbox: z.string(),
    count: z.int(),
    outcome: outcome({ children: z.array(z.string()) }),
  }),
  z.object({ op: z.literal('snapshot'), ...times, sandbox: z.string(), outcome: outcome({ snapshot: z.string() }) }),
  z.object({ op: z.literal('drop'), ...times, snapshot: z.string(), outcome: outcome({}) }),
  z.object({ op: z.literal('delete'), ...times, sandbox: z.string(), outcome: outcome({}) }),
  z.object({ op: z.literal('pause'), ...times, sandbox: z.string(), outcome: outcome({}) }),
  z.object({ op: z.literal('resume'), ...times, sandbox: z.string(), outcome: outcome({}) }),
  /** It is given a time that does not end within the history. */
  z.object({ op: z.literal('renew'), ...times, sandbox: z.string(), outcome: outcome({}) }),
  /** It is given a time of so many milliseconds, at whose end it is paused. */
  z.object({ op: z.literal('expire'), ...times, sandbox: z.string(), after: z.number(), outcome: outcome({}) }),
  /** No value is written twice in a history. */
  z.object({
    op: z.literal('write'),
    ...times,
    sandbox: z.string(),
    file: z.string(),
    value: z.string(),
    outcome: outcome({}),
  }),
  /** null: there is no such file. */
  z.object({
    op: z.literal('read'),
    ...times,
    sandbox: z.string(),
    file: z.string(),
    outcome: outcome({ value: z.string().nullable() }),
  }),
  /** `process` names the process that counts, `count` how far it is. */
  z.object({
    op: z.literal('count'),
    ...times,
    sandbox: z.string(),
    outcome: outcome({ process: z.string(), count: z.int() }),
  }),
  z.object({ op: z.literal('list'), ...times, outcome: outcome({ sandboxes: z.array(Seen) }) }),
  /** The server was ended by SIGKILL at `begin` and answered again at `end`. */
  z.object({ op: z.literal('kill'), ...times }),
  z.object({
    op: z.literal('census'),
    ...times,
    sandboxes: z.array(Seen),
    /** By sandbox the state that its last event told; absent: not looked at. */
    events: z.record(z.string(), z.string()).optional(),
    /** Records of what sandboxes that are gone have used; absent: not looked at. */
    usage: z.array(z.object({ sandbox: z.string(), runningSeconds: z.number() })).optional(),
    /** All that are ready. Hidden: of a template, a pause or a fork. */
    snapshots: z.array(z.object({ id: z.string(), hidden: z.boolean(), template: z.string().optional() })),
    node: z.object({
      /** Containers that were made ahead for nobody yet. */
      slots: z.array(z.string()),
      /** By kind of thing (machines, cgroups, mounts…) the containers that have one. */
      containers: z.record(z.string(), z.array(z.string())),
      /** Directories of snapshots. */
      snapshots: z.array(z.string()),
      /** Whatever lies where things are made and nothing may stay. */
      temporary: z.array(z.string()),
    }),
  }),
])
export type Operation = z.infer<typeof Operation>
export type Verb = Operation['op']
export type OperationOf<V extends Verb> = Extract<Operation, { op: V }>

type Asked<O> = O extends { outcome: unknown } ? Omit<O, 'begin' | 'end' | 'outcome'> : never
/** An operation as it was asked for. */
export type Invocation = Asked<Operation>
export type Outcome<V extends Verb = Invocation['op']> = Extract<OperationOf<V>, { outcome: unknown }>['outcome']

export type History = readonly Operation[]

/** JSON, one operation a line. Throws with the number of the line that is none. */
export function parseHistory(text: string): Operation[] {
  return text
    .split('\n')
    .map((line, index) => ({ line, number: index + 1 }))
    .filter(({ line }) => line.trim() !== '')
    .map(({ line, number }) => {
      try {
        return Operation.parse(JSON.parse(line))
      } catch (cause) {
        throw new Error(`line ${number} is no operation of a history`, { cause })
      }
    })
}

export const formatHistory = (history: History): string =>
  history.map((operation) => `${JSON.stringify(operation)}\n`).join('')

/** The operations of one verb. */
export const ofVerb = <V extends Verb>(history: History, verb: V): OperationOf<V>[] =>
  history.filter((operation): operation is OperationOf<V> => operation.op === verb)
