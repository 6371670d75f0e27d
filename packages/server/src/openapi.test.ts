import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { openApiDocument } from './openapi.ts'
import { API_PAGE, OPENAPI_FILE, withRouteTable } from './reference.ts'
import { serve } from './testing.ts'

const HOW = 'out of date: run `npm run docs -w packages/server` and commit what it wrote'

describe('the OpenAPI document', () => {
  it('is the one that is committed', async () => {
    assert.deepEqual(JSON.parse(await readFile(OPENAPI_FILE, 'utf8')), await openApiDocument(), HOW)
  })

  it('is served', async (t) => {
    const server = await serve(t)
    assert.deepEqual(await (await server.call('GET', '/v1/openapi.json')).json(), await openApiDocument())
  })

  it('names every operation once, and resolves every reference', async () => {
    const document = await openApiDocument()
    const names = Object.values(document.paths).flatMap((methods) =>
      Object.values(methods).map(({ operationId }) => operationId),
    )
    assert.ok(names.every((name) => /^[a-z][A-Za-z]+$/.test(name)))
    assert.equal(new Set(names).size, names.length)
    const references = [...JSON.stringify(document).matchAll(/"#\/components\/schemas\/([^"]+)"/g)].map(
      ([, name]) => name,
    )
    assert.deepEqual([...new Set(references)].sort(), Object.keys(document.components.schemas).sort())
  })

  it('says which bodies may be left out', async () => {
    const { paths } = await openApiDocument()
    assert.equal(paths['/v1/sandboxes']?.post?.requestBody?.required, true)
    assert.equal(paths['/v1/sandboxes/{id}/fork']?.post?.requestBody?.required, false)
  })
})

describe('docs/reference/api.md', () => {
  it('lists the routes there are', async () => {
    const page = await readFile(API_PAGE, 'utf8')
    assert.equal(page, withRouteTable(page, await openApiDocument()), HOW)
  })
})
