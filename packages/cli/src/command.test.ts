import assert from 'node:assert/strict'
import { test } from 'node:test'
import { COMMAND, SANDBOX } from './arguments.ts'
import { JSON_FLAG, parse, UsageError, usage } from './command.ts'

const EXEC = {
  arguments: [SANDBOX],
  rest: COMMAND,
  flags: {
    interactive: { summary: '', short: 'i' },
    tty: { summary: '', short: 't' },
    user: { summary: '', value: 'U', short: 'u' },
    env: { summary: '', value: 'K=V', multiple: true },
    ...JSON_FLAG,
  },
} as const
const PLAIN = { arguments: [SANDBOX, { name: 'to', summary: '', optional: true }], flags: JSON_FLAG } as const

test('flags stand anywhere before --, what stands behind it is the command', () => {
  assert.deepEqual(
    parse(EXEC, ['-it', '--env', 'A=1', 'box', '--env=B=2=3', '-uroot', '--', 'ls', '--json', '--', '-x']),
    {
      arguments: { sandbox: 'box' },
      flags: { interactive: true, tty: true, user: 'root', env: ['A=1', 'B=2=3'], json: false },
      rest: ['ls', '--json', '--', '-x'],
    },
  )
  assert.deepEqual(parse(PLAIN, ['--json', 'a']), {
    arguments: { sandbox: 'a', to: undefined },
    flags: { json: true },
    rest: [],
  })
})

test('without a command of its own, -- only ends the flags', () => {
  assert.deepEqual(parse(PLAIN, ['a', '--', '--json']).arguments, { sandbox: 'a', to: '--json' })
})

test('values may be empty, a dash, or begin with one when they are joined', () => {
  assert.equal(parse(EXEC, ['--user=', 'a', '--', 'x']).flags.user, '')
  assert.equal(parse(EXEC, ['--user', '-', 'a', '--', 'x']).flags.user, '-')
  assert.equal(parse(EXEC, ['--user=-1', 'a', '--', 'x']).flags.user, '-1')
  assert.equal(parse(EXEC, ['--user', '-1', 'a', '--', 'x']).flags.user, '-1')
  assert.equal(parse(EXEC, ['--user', 'a', '--user', 'b', 'a', '--', 'x']).flags.user, 'b')
})

const REFUSED: [words: string[], message: RegExp][] = [
  [['box', '--usr', 'x', '--', 'ls'], /no flag --usr; did you mean --user\?/],
  [['box', '-x', '--', 'ls'], /no flag -x$/],
  [['box', '-e', 'A=1', '--', 'ls'], /no flag -e; did you mean --env\?/],
  [['box', '-j', '--', 'ls'], /no flag -j; did you mean --json\?/],
  [['box', '--hlep', '--', 'ls'], /did you mean --help\?/],
  [['box', '--no-json', '--', 'ls'], /no flag --no-json/],
  [['box', '--constructor', '--', 'ls'], /no flag --constructor/],
  [['box', '--json=yes', '--', 'ls'], /--json takes no value/],
  [['box', '--user', '--', 'ls'], /--user needs a value: --user U/],
  [['box', '--user', '--json', '--', 'ls'], /--user needs a value/],
  [['box', '-u'], /-u needs a value/],
  [['--', 'ls'], /SANDBOX is missing/],
  [['box'], /give a CMD after --/],
  [['box', '--'], /give a CMD after --/],
  [['', '--', 'ls'], /SANDBOX is empty/],
  [['box', 'ls', '-la', 'x'], /put -- before the CMD: -- ls -la x/],
  [['box', 'ls', 'x'], /put -- before the CMD: -- ls x/],
]
for (const [words, message] of REFUSED)
  test(`refused: ${words.join(' ')}`, () => {
    assert.throws(
      () => parse(EXEC, words),
      (thrown) => thrown instanceof UsageError && message.test(thrown.message),
    )
  })

test('the argument that is empty is named', () => {
  assert.throws(() => parse(PLAIN, ['a', '']), { message: 'TO is empty' })
})

test('too many arguments are refused', () => {
  assert.throws(() => parse(PLAIN, ['a', 'b', 'c d']), { message: 'too many arguments: "c d"' })
})

test('the usage says what is optional and what comes often', () => {
  assert.equal(usage('exec', EXEC), 'icebox exec [flags] SANDBOX -- CMD...')
  assert.equal(usage('x', PLAIN), 'icebox x [flags] SANDBOX [TO]')
})
