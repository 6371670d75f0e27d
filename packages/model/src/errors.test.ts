import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { ERRORS, type ErrorCode, IceboxError, isError } from './errors.ts'
import { withErrorTable } from './errors-page.ts'

const PAGE = new URL('../../../docs/reference/errors.md', import.meta.url)

test('docs/reference/errors.md lists the registry (UPDATE_DOCS=1 writes it)', async () => {
  const page = await readFile(PAGE, 'utf8')
  const wanted = withErrorTable(page)
  if (process.env.UPDATE_DOCS) await writeFile(PAGE, wanted)
  else assert.equal(page, wanted, 'out of date: run UPDATE_DOCS=1 node packages/model/src/errors.test.ts and commit')
})

test('every code has the status of an error and a remedy in a sentence', () => {
  for (const [code, { status, remedy }] of Object.entries(ERRORS)) {
    assert.match(code, /^[A-Z][A-Za-z]+$/)
    assert.ok(status >= 400 && status < 600, code)
    assert.match(remedy, /^[A-Z].*[.)]$/, code)
  }
})

test('an error carries what its code says, unless told otherwise', () => {
  const cause = new Error('why')
  const plain = new IceboxError('NotFound', 'no sandbox x', { cause, details: { name: 'x' } })
  assert.equal(plain.name, 'IceboxError')
  assert.equal(plain.message, 'no sandbox x')
  assert.equal(plain.status, 404)
  assert.equal(plain.remedy, ERRORS.NotFound.remedy)
  assert.equal(plain.cause, cause)
  assert.deepEqual(plain.details, { name: 'x' })
  assert.equal(new IceboxError('NotFound', 'x', { remedy: 'Do that.' }).remedy, 'Do that.')
  assert.equal('cause' in new IceboxError('NotFound', 'x'), false)
})

test('anything thrown becomes one, and keeps what it was', () => {
  const ours = new IceboxError('Conflict', 'x')
  assert.equal(IceboxError.from(ours), ours)
  const errno = (code: string) => Object.assign(new Error(code), { code })
  const cases: [unknown, ErrorCode][] = [
    [errno('ENOSPC'), 'NoSpace'],
    [errno('EDQUOT'), 'NoSpace'],
    [errno('EACCES'), 'Internal'],
    [AbortSignal.abort().reason, 'DeadlineExceeded'],
    [new DOMException('late', 'TimeoutError'), 'DeadlineExceeded'],
    [new TypeError('x is undefined'), 'Internal'],
    ['text', 'Internal'],
    [undefined, 'Internal'],
  ]
  for (const [thrown, code] of cases) {
    const error = IceboxError.from(thrown)
    assert.equal(error.code, code, String(thrown))
    if (thrown !== undefined) assert.equal(error.cause, thrown)
  }
  assert.match(IceboxError.from(new TypeError('x is undefined')).message, /x is undefined/)
})

test('isError asks for codes', () => {
  const error = new IceboxError('NotFound', 'x')
  assert.ok(isError(error, 'Conflict', 'NotFound'))
  assert.equal(isError(error, 'Conflict'), false)
  assert.equal(isError(new Error('x'), 'NotFound'), false)
})
