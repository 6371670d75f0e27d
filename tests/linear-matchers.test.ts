import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { matcherFaults } from './linear-matchers.ts'

const ROOT = join(import.meta.dirname, '..')

test('the server meets no text with a matcher that costs more than its length', () => {
  const { files, faults } = matcherFaults(ROOT)
  assert.ok(files > 100, `only ${files} files were looked at`)
  assert.deepEqual(faults, [])
})

/** Lines of sources, and what must be said of them; undefined: nothing. */
const SEEDED: [source: string, fault: RegExp | undefined][] = [
  ['export const a = /^(a+)+$/.test(text)', /exponential/],
  ['export const a = /^(?:a|a)*$/.test(text)', /exponential/],
  ['export const a = /^(\\w|\\d)*$/.test(text)', /exponential/],
  ['export const a = /^(a|aa)*$/.test(text)', /exponential/],
  ['export const a = /^(?:(?:ab)*|c*)*$/.test(text)', /exponential/],
  ['export const a = /^\\d+\\d+$/.test(text)', /polynomial/],
  ['export const a = /^\\s*\\w*\\s*\\s*x$/.test(text)', /polynomial/],
  ["export const a = text.replace(/\\s+$/, '')", /polynomial \(Move\)/],
  ['export const a = text.match(/a+b/)', /polynomial \(Move\)/],
  ['export const a = z.string().regex(/^(.*,)*$/)', /exponential/],
  ['export const a = new RegExp(text)', /made of text/],
  ["export const a = RegExp('^' + text)", /made of text/],
  ['export const a = posix.matchesGlob(text, text)', /globs are matched by matchesGlob/],
  ["import { minimatch as m } from 'minimatch'", /globs are matched by minimatch/],
  ['export const a = /^(?:[a-z0-9]+\\.)*[a-z]+$/.test(text)', undefined],
  ['export const a = /^"(?:[^"\\\\]|\\\\.)*"$/.test(text)', undefined],
  ['export const a = /^[a-z]+-\\d+$/.test(text)', undefined],
  ["export const a: string = text.replace(/[<>]/g, '')", undefined],
]

test('a matcher that costs more is found', (t) => {
  const root = mkdtempSync(join(tmpdir(), 'matchers-'))
  t.after(() => rmSync(root, { recursive: true, force: true }))
  for (const [index, [source]] of SEEDED.entries()) {
    const path = join(root, `packages/server/src/seeded-${String(index).padStart(2, '0')}.ts`)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, `declare const text: string\n${source}\n`)
  }
  const { faults } = matcherFaults(root)
  for (const [index, [source, fault]] of SEEDED.entries()) {
    const said = faults.filter((each) => each.includes(`seeded-${String(index).padStart(2, '0')}.ts:2:`))
    if (fault === undefined) assert.deepEqual(said, [], source)
    else assert.match(said.join('\n'), fault, source)
  }
})
