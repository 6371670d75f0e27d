import { existsSync, readFileSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { type ImportDeclaration, type Node, type SourceFile, SyntaxKind } from 'typescript/unstable/ast'
import * as is from 'typescript/unstable/ast/is'
import { API } from 'typescript/unstable/sync'

/** Which of our packages each package may import, always by name and only the package itself. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  model: [],
  store: ['model'],
  snapshot: ['model'],
  node: ['model', 'snapshot'],
  control: ['model', 'store'],
  server: ['control', 'model'],
  sdk: ['model'],
  dashboard: ['sdk'],
  cli: ['model', 'store', 'snapshot', 'node', 'control', 'server', 'sdk'],
}
/** Packages that may take only types from ours: they must work where the rest of Icebox is not. */
const TYPES_ONLY = new Set(['sdk'])
/** Packages that start no processes; those that do own the deadlines and the clean-up. */
const NO_PROCESSES = new Set(['model', 'store', 'control', 'server', 'sdk', 'dashboard'])
/** Modules that can open connections. */
const CONNECTING = new Set([
  'node:http',
  'node:https',
  'node:http2',
  'node:net',
  'node:tls',
  'node:dgram',
  'node:dns',
  'node:dns/promises',
])
/** What of them opens none: servers, types, and what only looks at names. */
const NOT_CONNECTING = new Set([
  'isIPv6',
  ...[
    'createServer',
    'createSecureServer',
    'isIP',
    'isIPv6',
    'BlockList',
    'STATUS_CODES',
    'IncomingMessage',
    'ServerResponse',
  ],
  ...['createSecureContext', 'getCACertificates'],
])
/** Packages whose connections others could direct, and the files of theirs that may open any. */
const SERVING = new Set(['node', 'control', 'server', 'store', 'snapshot'])
const MAY_CONNECT = new Set([
  // The one client for what is fetched from elsewhere, which asks the address policy.
  'packages/node/src/outbound/http.ts',
  'packages/node/src/outbound/policy.ts',
  // To the guest agent, by FIFOs.
  'packages/node/src/link/attach.ts',
  // To ports of sandboxes, through the guest agent.
  'packages/server/src/gateway/gateway.ts',
  'packages/server/src/gateway/pool.ts',
])
/** Globals that open connections. */
const CONNECTING_GLOBALS = new Set(['fetch', 'WebSocket', 'EventSource'])

/** All that the nouns may have of Node: no input or output. */
const MODEL_BUILTINS = new Set(['node:crypto'])

interface Import {
  line: number
  /** Undefined when it is not a string that can be read here. */
  specifier: string | undefined
  typeOnly: boolean
  /** What is taken of it that is no type; undefined: all of it. */
  names: readonly string[] | undefined
}

/** Every import of a file: static, re-exported, dynamic, of types, and `require`. */
function importsOf(file: SourceFile): Import[] {
  const found: Import[] = []
  const add = (node: Node, specifier: Node | undefined, typeOnly: boolean, names?: readonly string[]) =>
    found.push({
      names,
      line: file.getLineAndCharacterOfPosition(node.getStart(file)).line + 1,
      specifier:
        specifier && (is.isStringLiteral(specifier) || is.isNoSubstitutionTemplateLiteral(specifier))
          ? specifier.text
          : undefined,
      typeOnly,
    })
  const visit = (node: Node): void => {
    if (is.isImportDeclaration(node))
      add(node, node.moduleSpecifier, node.importClause?.phaseModifier === SyntaxKind.TypeKeyword, namesOf(node))
    else if (is.isExportDeclaration(node) && node.moduleSpecifier) add(node, node.moduleSpecifier, node.isTypeOnly)
    else if (is.isImportTypeNode(node))
      add(node, is.isLiteralTypeNode(node.argument) ? node.argument.literal : undefined, true)
    else if (
      is.isCallExpression(node) &&
      (node.expression.kind === SyntaxKind.ImportKeyword ||
        (is.isIdentifier(node.expression) && node.expression.text === 'require'))
    )
      add(node, node.arguments[0], false)
    node.forEachChild(visit)
  }
  visit(file)
  return found
}

/** What a static import takes that is no type; undefined: all of it. */
function namesOf({ importClause }: ImportDeclaration): string[] | undefined {
  const bindings = importClause?.namedBindings
  if (importClause?.name !== undefined || bindings === undefined || !is.isNamedImports(bindings)) return undefined
  return bindings.elements
    .filter(({ isTypeOnly }) => !isTypeOnly)
    .map(({ name, propertyName }) => (propertyName ?? name).text)
}

/** Calls of globals that open connections, by line. */
function connectingCalls(file: SourceFile): { line: number; name: string }[] {
  const found: { line: number; name: string }[] = []
  const visit = (node: Node): void => {
    const called = is.isCallExpression(node) || is.isNewExpression(node) ? node.expression : undefined
    if (called !== undefined && is.isIdentifier(called) && CONNECTING_GLOBALS.has(called.text))
      found.push({ line: file.getLineAndCharacterOfPosition(node.getStart(file)).line + 1, name: called.text })
    node.forEachChild(visit)
  }
  visit(file)
  return found
}

/** Whether connections of this file have to go through the one client. */
const isServing = (file: string): boolean => {
  const [top, self = ''] = file.split(sep)
  return top === 'packages' && SERVING.has(self) && !isTest(file) && !MAY_CONNECT.has(file)
}

/** Why the import may not be there, or undefined when it may. `file` is relative to the root. */
function faultOf(root: string, file: string, { specifier, typeOnly, names }: Import): string | undefined {
  const parts = file.split(sep)
  const self = parts[0] === 'packages' ? parts[1] : undefined
  if (specifier === undefined) return 'imports what is not a plain string, so that nobody can tell what it needs'
  if (specifier.startsWith('.')) {
    const target = relative(root, resolve(root, dirname(file), specifier)).split(sep)
    // Benchmarks measure parts that nobody else sees; tests share what was written for tests.
    const open = parts[0] === 'bench' || (self === undefined && isTest(specifier))
    if (target[0] === 'packages' && target[1] !== self && !open)
      return `reaches into another package by path: ${specifier}`
    if (self !== undefined && (target[0] !== 'packages' || target[1] !== self))
      return `leaves its package: ${specifier}`
    return undefined
  }
  const ours = /^@icebox\/([^/]+)(\/.*)?$/.exec(specifier)
  if (ours) {
    const [, name = '', inside] = ours
    if (inside) return `imports a part of another package: ${specifier}`
    if (self === undefined) return undefined
    const allowed = MAY_IMPORT[self]
    if (!allowed) return `is in a package whose imports tests/imports.ts does not know: ${self}`
    if (!allowed.includes(name)) return `goes against the direction of imports: ${self} -> ${name}`
    if (TYPES_ONLY.has(self) && !typeOnly && !isTest(file))
      return `${self} may import only types of ${name} (import type)`
    return undefined
  }
  if (isBuiltin(specifier)) {
    if (!specifier.startsWith('node:')) return `names a module of Node without node: ${specifier}`
    if (self === undefined || isTest(file)) return undefined
    if (specifier === 'node:child_process' && NO_PROCESSES.has(self)) return `${self} starts no processes`
    const opens = names === undefined || names.some((name) => !NOT_CONNECTING.has(name))
    if (CONNECTING.has(specifier) && isServing(file) && !typeOnly && opens)
      return `opens connections beside the one client, outbound/http.ts: ${specifier}`
    if (self === 'model' && !MODEL_BUILTINS.has(specifier)) return `model does no input or output: ${specifier}`
    return undefined
  }
  const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/')
  const declared =
    declares(root, self === undefined ? '.' : join('packages', self), name) ||
    ((self === undefined || isTest(file)) && declares(root, '.', name))
  return declared ? undefined : `imports what its package.json does not name: ${name}`
}

/** Tests, what they share, and the suites that all implementations of one interface pass. */
const isTest = (file: string) => /(\.test|\/(conformance|fixture|testing))\.ts$/.test(file)

function declares(root: string, directory: string, name: string): boolean {
  const path = join(root, directory, 'package.json')
  if (!existsSync(path)) return false
  const manifest: { dependencies?: object; devDependencies?: object } = JSON.parse(readFileSync(path, 'utf8'))
  return name in { ...manifest.dependencies, ...manifest.devDependencies }
}

/** Everything that imports what it must not, one line each, in the TypeScript project of the root's tsconfig.json. */
export function importFaults(root: string): { files: number; faults: string[] } {
  const api = new API({ cwd: root })
  try {
    const config = join(root, 'tsconfig.json')
    using snapshot = api.updateSnapshot({ openProjects: [config] })
    const project = snapshot.getProject(config)
    if (!project) throw new Error(`${config} is no TypeScript project`)
    const faults: string[] = []
    for (const path of project.rootFiles) {
      const file = project.program.getSourceFile(path)
      if (!file) throw new Error(`${path} cannot be read`)
      for (const found of importsOf(file)) {
        const fault = faultOf(root, relative(root, path), found)
        if (fault) faults.push(`${relative(root, path)}:${found.line} ${fault}`)
      }
      if (isServing(relative(root, path)))
        for (const { line, name } of connectingCalls(file))
          faults.push(
            `${relative(root, path)}:${line} opens connections beside the one client, outbound/http.ts: ${name}`,
          )
    }
    return { files: project.rootFiles.length, faults }
  } finally {
    api.close()
  }
}
