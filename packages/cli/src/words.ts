import { SERVER_FLAGS, UsageError } from './command.ts'
import { COMMANDS } from './commands.ts'
import { closest } from './suggest.ts'

export interface Split {
  /** The command's words; undefined when they name none. */
  words: string | undefined
  /** The first word, when commands begin with it and it is none by itself. */
  group: string | undefined
  /** Flags that were given before the command's words. */
  before: string[]
  after: string[]
}

const VALUED = new Set(
  Object.entries(SERVER_FLAGS)
    .filter(([, flag]) => 'value' in flag)
    .map(([name]) => `--${name}`),
)
const isGroup = (word: string): boolean => Object.keys(COMMANDS).some((words) => words.startsWith(`${word} `))

/** Finds the command among the words; flags for all commands may stand before it, as in `icebox --json ps`. */
export function split(argv: readonly string[]): Split {
  let at = 0
  const skipFlags = () => {
    for (let word = argv[at]; word?.startsWith('-') && word !== '--'; word = argv[at]) at += VALUED.has(word) ? 2 : 1
  }
  skipFlags()
  const first = argv[at]
  const before = argv.slice(0, at)
  if (first === undefined) return { words: undefined, group: undefined, before, after: [] }
  if (Object.hasOwn(COMMANDS, first)) return { words: first, group: undefined, before, after: argv.slice(at + 1) }
  if (!isGroup(first))
    return { words: undefined, group: undefined, before: [], after: [first, ...before, ...argv.slice(at + 1)] }
  at += 1
  const begin = at
  skipFlags()
  before.push(...argv.slice(begin, at))
  const both = `${first} ${argv[at] ?? ''}`
  if (Object.hasOwn(COMMANDS, both)) return { words: both, group: first, before, after: argv.slice(at + 1) }
  return { words: undefined, group: first, before: [], after: [...argv.slice(at), ...before] }
}

/** What other tools call it. */
const HABITS: Record<string, readonly string[]> = {
  rm: ['sandbox delete', 'image delete', 'snapshot delete'],
  remove: ['sandbox delete'],
  kill: ['sandbox delete'],
  ls: ['ps', 'sandbox list'],
  images: ['image list'],
  snapshots: ['snapshot list'],
  templates: ['template list'],
  start: ['up', 'resume'],
  stop: ['down', 'pause'],
  restore: ['resume', 'rollback'],
  commit: ['snapshot create'],
  ssh: ['shell'],
  attach: ['shell', 'exec'],
  inspect: ['sandbox show', 'snapshot show'],
  clone: ['fork'],
  new: ['sandbox create'],
}

/** The error for words that name no command, with those that were likely meant. */
export function unknownCommand(group: string | undefined, given: readonly string[]): UsageError {
  const word = given[0] ?? ''
  if (group !== undefined) {
    const known = Object.keys(COMMANDS).filter((words) => words.startsWith(`${group} `))
    const meant = closest(`${group} ${word}`, known)
    if (word === '' || word.startsWith('-')) return new UsageError(`icebox ${group} needs one of: ${known.join(', ')}`)
    return new UsageError(`there is no command "${group} ${word}"${suggestion(meant.length > 0 ? meant : known)}`)
  }
  if (word.startsWith('-')) return new UsageError(`there is no flag ${word} without a command`)
  // A word may be meant as the whole command, its first word or its last: `sandox list`, `pul`.
  const candidates = new Map<string, string[]>()
  for (const words of Object.keys(COMMANDS))
    for (const part of new Set([words, words.split(' ')[0] ?? '', words.split(' ').at(-1) ?? '']))
      candidates.set(part, [...(candidates.get(part) ?? []), part === words.split(' ')[0] ? part : words])
  const exact = candidates.get(word) ?? (Object.hasOwn(HABITS, word) ? HABITS[word] : undefined)
  const meant = exact ?? closest(word, [...candidates.keys()]).flatMap((part) => candidates.get(part) ?? [])
  return new UsageError(`there is no command "${word}"${suggestion([...new Set(meant)])}`)
}

const suggestion = (meant: readonly string[]): string =>
  meant.length === 0
    ? ''
    : `; did you mean ${meant
        .slice(0, 4)
        .map((words) => `"icebox ${words}"`)
        .join(' or ')}?`
