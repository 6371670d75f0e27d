import { parseArgs } from 'node:util'
import { closest } from './suggest.ts'

/**
 * What a command takes, said once: it is parsed, checked, explained (`--help`) and documented from here. Words are cut by
 * node:util's parseArgs; what it lets through is refused here, because a flag that is misread does harm in silence.
 */

export interface Argument {
  /** As it stands in the usage, without upper case. */
  readonly name: string
  readonly summary: string
  readonly optional?: true
  readonly multiple?: true
}

export interface Flag {
  readonly summary: string
  readonly short?: string
  /** What stands for its value in the usage; a flag without is on or off. */
  readonly value?: string
  /** May be given several times. */
  readonly multiple?: true
}
export type Flags = Readonly<Record<string, Flag>>

type ValueOf<F extends Flag> = F extends { readonly value: string }
  ? F extends { readonly multiple: true }
    ? string[]
    : string | undefined
  : boolean
type ArgumentOf<A extends Argument> = A extends { readonly multiple: true }
  ? string[]
  : A extends { readonly optional: true }
    ? string | undefined
    : string

export interface Given<A extends readonly Argument[], F extends Flags> {
  arguments: { [K in A[number] as K['name']]: ArgumentOf<K> }
  flags: { [K in keyof F]: ValueOf<F[K]> }
  /** What stands after `--`. */
  rest: string[]
}

export interface Definition<A extends readonly Argument[], F extends Flags> {
  readonly arguments: A
  readonly flags: F
  /** What stands after `--`; absent: nothing may. */
  readonly rest?: Argument
  /** Exit status; default 0. */
  readonly run: (given: Given<A, F>) => Promise<number | undefined>
  /** Exit status when it throws; default 1. */
  readonly failureStatus?: number
}

export interface Command {
  readonly arguments: readonly Argument[]
  readonly flags: Flags
  readonly rest?: Argument
  readonly failureStatus: number
  /** Parses the words after the command's name. Throws UsageError. */
  execute(words: readonly string[]): Promise<number>
}

/** The words were wrong; nothing was done. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

export const HELP: Flag = { summary: 'Explain this command.', short: 'h' }
export const JSON_FLAG = { json: { summary: 'Print JSON.' } } as const satisfies Flags
/** Which server is meant. */
export const SERVER_FLAGS = {
  url: { summary: 'Address of the server. Default: ICEBOX_URL, else the one of this machine.', value: 'URL' },
  data: { summary: 'Data directory of the server, for its address and key. Default: ICEBOX_DATA.', value: 'DIR' },
  ...JSON_FLAG,
} as const satisfies Flags

export function define<const A extends readonly Argument[], const F extends Flags>(
  definition: Definition<A, F>,
): Command {
  return {
    arguments: definition.arguments,
    flags: definition.flags,
    ...(definition.rest === undefined ? {} : { rest: definition.rest }),
    failureStatus: definition.failureStatus ?? 1,
    execute: async (words) => (await definition.run(parse(definition, words))) ?? 0,
  }
}

/** The values of the words that a command was called with. Throws UsageError. */
export function parse<const A extends readonly Argument[], const F extends Flags>(
  definition: Pick<Definition<A, F>, 'arguments' | 'flags' | 'rest'>,
  words: readonly string[],
): Given<A, F> {
  const { flags } = definition
  const options = Object.fromEntries(
    Object.entries(flags).map(([name, { short, value }]) => [
      name,
      { type: value === undefined ? 'boolean' : 'string', ...(short === undefined ? {} : { short }) } as const,
    ]),
  )
  const { tokens } = parseArgs({ args: [...words], options, strict: false, allowPositionals: true, tokens: true })
  const values = new Map<string, string[]>()
  const before: string[] = []
  const after: string[] = []
  let terminated = false
  for (const token of tokens) {
    if (token.kind === 'option-terminator') terminated = true
    else if (token.kind === 'positional') (terminated ? after : before).push(token.value)
    else {
      const { name, rawName, value, inlineValue } = token
      const flag = Object.hasOwn(flags, name) ? flags[name] : undefined
      if (flag === undefined) {
        // A flag behind one argument too many is the CMD's own.
        if (before.length > definition.arguments.length) assign(definition, [...before, ...words.slice(token.index)])
        throw unknownFlag(rawName, flags)
      }
      if (flag.value === undefined && value !== undefined) throw new UsageError(`${rawName} takes no value`)
      if (flag.value !== undefined && (value === undefined || (!inlineValue && /^-[^\d]/.test(value))))
        throw new UsageError(`${rawName} needs a value: ${rawName} ${flag.value}`)
      values.set(name, [...(values.get(name) ?? []), value ?? ''])
    }
  }
  if (after.length > 0 && definition.rest === undefined) before.push(...after.splice(0))
  const assigned = assign(definition, before)
  if (definition.rest !== undefined && definition.rest.optional !== true && after.length === 0)
    throw new UsageError(`give a ${placeholder(definition.rest)} after --`)
  return {
    arguments: assigned,
    flags: Object.fromEntries(
      Object.entries(flags).map(([name, { value, multiple }]) => {
        const given = values.get(name)
        return [name, value === undefined ? given !== undefined : multiple === true ? (given ?? []) : given?.at(-1)]
      }),
    ) as Given<A, F>['flags'],
    rest: after,
  }
}

function assign<A extends readonly Argument[], F extends Flags>(
  definition: Pick<Definition<A, F>, 'arguments' | 'rest'>,
  words: string[],
): Given<A, F>['arguments'] {
  const taken: Record<string, string | string[] | undefined> = {}
  const left = [...words]
  for (const argument of definition.arguments) {
    if (left.length === 0 && argument.optional !== true) throw new UsageError(`${placeholder(argument)} is missing`)
    const given = left.splice(0, argument.multiple === true ? left.length : 1)
    if (given.includes('')) throw new UsageError(`${placeholder(argument)} is empty`)
    taken[argument.name] = argument.multiple === true ? given : given[0]
  }
  if (left.length > 0) {
    const what = left.map((word) => JSON.stringify(word)).join(' ')
    throw new UsageError(
      definition.rest === undefined
        ? `too many arguments: ${what}`
        : `put -- before the ${placeholder(definition.rest)}: -- ${left.join(' ')}`,
    )
  }
  return taken as Given<A, F>['arguments']
}

/** Short flags of other tools, by what is meant here. */
const HABITS: Readonly<Record<string, string>> = { e: 'env', m: 'memory', u: 'user', w: 'cwd' }

/** Flags that a letter may stand for. */
function abbreviated(letter: string, flags: Flags): string[] {
  const habit = HABITS[letter]
  const names = Object.keys(flags)
  return (habit !== undefined && names.includes(habit) ? [habit] : names.filter((name) => name.startsWith(letter))).map(
    (name) => `--${name}`,
  )
}

function unknownFlag(rawName: string, flags: Flags): UsageError {
  const known = Object.entries({ ...flags, help: HELP }).flatMap(([name, { short }]) => [
    `--${name}`,
    ...(short === undefined ? [] : [`-${short}`]),
  ])
  // By its length any letter is near any other.
  const meant = /^-[^-]$/.test(rawName) ? abbreviated(rawName.slice(1).toLowerCase(), flags) : closest(rawName, known)
  return new UsageError(`there is no flag ${rawName}${meant.length > 0 ? `; did you mean ${meant.join(' or ')}?` : ''}`)
}

const placeholder = ({ name }: Argument): string => name.toUpperCase()

/** Such as `exec [flags] SANDBOX -- CMD...`. */
export function usage(words: string, command: Pick<Command, 'arguments' | 'rest' | 'flags'>): string {
  const shape = (argument: Argument) => {
    const text = `${placeholder(argument)}${argument.multiple === true ? '...' : ''}`
    return argument.optional === true ? `[${text}]` : text
  }
  const rest = command.rest
  return [
    'icebox',
    words,
    ...(Object.keys(command.flags).length > 0 ? ['[flags]'] : []),
    ...command.arguments.map(shape),
    ...(rest === undefined
      ? []
      : [rest.optional === true ? `[-- ${placeholder(rest)}...]` : `-- ${placeholder(rest)}...`]),
  ].join(' ')
}

/** Such as `-n, --count N`. */
export const flagUsage = (name: string, { short, value }: Flag): string =>
  `${short === undefined ? '' : `-${short}, `}--${name}${value === undefined ? '' : ` ${value}`}`
