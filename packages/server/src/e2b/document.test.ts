import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { E2B_OPENAPI_FILE } from '../reference.ts'
import { e2bDocument } from './document.ts'

describe('the OpenAPI document of the E2B routes', () => {
  it('is the one that is committed', async () => {
    assert.deepEqual(
      JSON.parse(await readFile(E2B_OPENAPI_FILE, 'utf8')),
      await e2bDocument(),
      'out of date: run `npm run docs -w packages/server` and commit what it wrote',
    )
  })

  it('names every operation once, resolves every reference, and has nothing of the native API', async () => {
    const document = await e2bDocument()
    const names = Object.values(document.paths).flatMap((methods) =>
      Object.values(methods).map(({ operationId }) => operationId),
    )
    assert.equal(new Set(names).size, names.length)
    const text = JSON.stringify(document)
    const references = [...text.matchAll(/"#\/components\/schemas\/([^"]+)"/g)].map(([, name]) => name)
    assert.deepEqual([...new Set(references)].sort(), Object.keys(document.components.schemas).sort())
    assert.ok(Object.keys(document.paths).every((path) => !path.startsWith('/v1/')))
  })
})
