import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { importFaults } from './imports.ts'

const ROOT = join(import.meta.dirname, '..')

test('imports go only in the allowed directions', () => {
  const { files, faults } = importFaults(ROOT)
  assert.ok(files > 20, `only ${files} files were looked at`)
  assert.deepEqual(faults, [])
})

/** A file that breaks one rule, by its path, and what must be said about its second line. Its first line is allowed. */
const SEEDED: [path: string, source: string, fault: RegExp][] = [
  ['packages/model/src/a.ts', "import type { S } from '@icebox/store'", /direction of imports: model -> store/],
  ['packages/model/src/b.ts', "import { readFile } from 'node:fs/promises'", /no input or output: node:fs\/promises/],
  ['packages/store/src/a.ts', "export * from '@icebox/control'", /direction of imports: store -> control/],
  ['packages/store/src/b.ts', "import { spawn } from 'node:child_process'", /store starts no processes/],
  ['packages/snapshot/src/a.ts', "export const n = await import('@icebox/node')", /snapshot -> node/],
  ['packages/node/src/a.ts', "export type S = import('@icebox/store').Store", /node -> store/],
  ['packages/node/src/b.ts', "import { x } from '../../model/src/inside.ts'", /another package by path/],
  ['packages/node/src/c.ts', "import '@icebox/model/src/inside.ts'", /part of another package/],
  ['packages/node/src/d.ts', "import { x } from '../../../setup/x.ts'", /leaves its package/],
  ['packages/node/src/e.ts', "const name = 'x'; await import(name)", /not a plain string/],
  ['packages/node/src/f.ts', "import { z } from 'left-pad'", /package.json does not name: left-pad/],
  ['packages/node/src/g.ts', "import { z } from '@scope/left-pad/deep'", /does not name: @scope\/left-pad$/],
  ['packages/node/src/h.ts', "import * as fs from 'fs'", /without node: fs/],
  ['packages/node/src/i.ts', "import { request } from 'node:https'", /beside the one client.*: node:https/],
  ['packages/node/src/j.ts', "import net, { type Socket } from 'node:net'", /beside the one client.*: node:net/],
  ['packages/control/src/b.ts', "import * as tls from 'node:tls'", /beside the one client.*: node:tls/],
  ['packages/server/src/b.ts', "const { connect } = await import('node:net')", /beside the one client.*: node:net/],
  ['packages/server/src/c.ts', 'export const load = (url: string) => fetch(url)', /beside the one client.*: fetch/],
  ['packages/control/src/a.test.ts', "import { x } from '@icebox/node'", /control -> node/],
  ['packages/server/src/a.ts', "import { x } from '@icebox/store'", /server -> store/],
  ['packages/sdk/src/a.ts', "import { x } from '@icebox/model'", /only types of model/],
  ['packages/sdk/src/b.ts', "export { type X } from '@icebox/model'", /only types of model/],
  ['packages/cli/src/a.ts', "const x = require('./b.ts').x", /^$/],
  ['packages/other/src/a.ts', "import { x } from '@icebox/model'", /does not know: other/],
  ['tests/a.ts', "import { x } from '../packages/node/src/x.ts'", /another package by path/],
]

test('an import against any of the rules is found', (t) => {
  const root = realpathSync(mkdtempSync(join(tmpdir(), 'imports-')))
  t.after(() => rmSync(root, { recursive: true, force: true }))
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  write(
    'tsconfig.json',
    JSON.stringify({ compilerOptions: { noEmit: true }, include: ['packages/*/src', 'tests', 'bench'] }),
  )
  write('package.json', JSON.stringify({ devDependencies: { 'fast-check': '1' } }))
  write('packages/node/package.json', JSON.stringify({ dependencies: { zod: '1' } }))
  symlinkSync(join(ROOT, 'node_modules'), join(root, 'node_modules'))
  for (const [path, source] of SEEDED) write(path, `import { createHash } from 'node:crypto'\n${source}\n`)
  write(
    'packages/node/src/good.ts',
    "import { z } from 'zod'\nimport { E } from '@icebox/model'\n// import 'left-pad'\n",
  )
  write('packages/node/src/good.test.ts', "import fc from 'fast-check'\nimport { spawn } from 'node:child_process'\n")
  write('packages/sdk/src/good.ts', "import type { X } from '@icebox/model'\nexport type { Y } from '@icebox/model'\n")
  write('tests/good-too.ts', "import { x } from '../packages/node/src/images/fixture.ts'\n")
  write('bench/good.ts', "import { x } from '../packages/node/src/x.ts'\n")
  write('tests/good.ts', "import { x } from '@icebox/cli'\nimport './a.ts'\n")
  const { faults } = importFaults(root)
  for (const [path, source, expected] of SEEDED) {
    const said = faults.filter((fault) => fault.startsWith(`${path}:`))
    if (expected.source === '^$') assert.deepEqual(said, [], `${path}: ${source}`)
    else {
      assert.equal(said.length, 1, `${path}: ${source}: ${said.join(', ')}`)
      assert.match(said.join(), expected)
      assert.match(said.join(), /^[^:]+:2 /, 'the line')
    }
  }
  assert.deepEqual(
    faults.filter((fault) => /good/.test(fault)),
    [],
  )
})
