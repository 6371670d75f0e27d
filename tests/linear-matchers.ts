import { globSync, readFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { join } from 'node:path'
import { RegExpParser } from '@eslint-community/regexpp'
import { parse } from 'acorn'
import { analyse } from 'scslre'
import { isExponential } from './ambiguity.ts'

/**
 * Where the server's sources could meet the text of a client or a guest with a matcher that costs more than a time in proportion to that text:
 * regular expressions that go back, or begin again at every character; such as are made of text; libraries for globs.
 */

/** What runs in the server, or may. */
const SOURCES = [
  'packages/{model,store,snapshot,node,control,server}/src/**/*.ts',
  'packages/cli/src/{compose,log,server-log}.ts',
  'packages/cli/src/up/**/*.ts',
]
/** Tests, and what is written by a generator. */
const OTHERS = /\.test\.ts$|\/testing\.ts$|\/generated\//

/** Expressions that only ever see text of the operator's or of the installation's own programs, or that is a few bytes long. */
const SHORT: ReadonlySet<string> = new Set([
  // The version that a program says of itself.
  'packages/node/src/setup/version.ts',
  'packages/node/src/setup/runsc.ts',
  // Names in the operator's file of registry credentials.
  'packages/node/src/images/registry/credentials.ts',
  // A field of twelve bytes.
  'packages/node/src/images/tar.ts',
])

/** Of the platform and of libraries. */
const GLOBS = new Set(['matchesGlob', 'minimatch', 'micromatch', 'picomatch', 'fast-glob', 'globby'])

interface SyntaxNode {
  type: string
  loc?: { start: { line: number } }
  [field: string]: unknown
}

const isNode = (value: unknown): value is SyntaxNode =>
  typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string'

function* nodesOf(value: unknown): Generator<SyntaxNode> {
  if (Array.isArray(value)) for (const each of value) yield* nodesOf(each)
  if (!isNode(value)) return
  yield value
  for (const field of Object.values(value)) yield* nodesOf(field)
}

/** What is wrong with a regular expression; undefined: nothing. */
function faultOf(pattern: string, flags: string): string | undefined {
  const parser = new RegExpParser()
  const parsed = parser.parsePattern(pattern, 0, pattern.length, {
    unicode: flags.includes('u'),
    unicodeSets: flags.includes('v'),
  })
  // Also such as are tried anew at every character ("Move").
  const { reports } = analyse({ pattern: parsed, flags: parser.parseFlags(flags) })
  const [first] = reports
  if (isExponential({ source: pattern, flags })) return `exponential: /${pattern}/${flags}`
  return first && `${first.exponential ? 'exponential' : 'polynomial'} (${first.type}): /${pattern}/${flags}`
}

function* faultsIn(node: SyntaxNode): Generator<string> {
  const { regex, callee } = node
  if (
    node.type === 'Literal' &&
    typeof regex === 'object' &&
    regex !== null &&
    'pattern' in regex &&
    'flags' in regex
  ) {
    const fault = faultOf(String(regex.pattern), String(regex.flags))
    if (fault !== undefined) yield `a regular expression is ${fault}`
  }
  if ((node.type === 'NewExpression' || node.type === 'CallExpression') && isNode(callee) && callee.name === 'RegExp')
    yield 'a regular expression is made of text'
  if (node.type === 'Identifier' && GLOBS.has(String(node.name))) yield `globs are matched by ${node.name}`
  if (node.type === 'Literal' && GLOBS.has(String(node.value))) yield `globs are matched by ${node.value}`
}

export function matcherFaults(root: string): { files: number; faults: string[] } {
  const files = globSync(SOURCES, { cwd: root }).filter((file) => !OTHERS.test(file))
  const faults: string[] = []
  for (const file of files.sort()) {
    if (SHORT.has(file)) continue
    const source = stripTypeScriptTypes(readFileSync(join(root, file), 'utf8'))
    const program = parse(source, { ecmaVersion: 'latest', sourceType: 'module', locations: true, allowHashBang: true })
    for (const node of nodesOf(program))
      for (const fault of faultsIn(node)) faults.push(`${file}:${node.loc?.start.line}: ${fault}`)
  }
  return { files: files.length, faults }
}
