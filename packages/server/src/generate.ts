import { readFile, writeFile } from 'node:fs/promises'
import { e2bDocument } from './e2b/document.ts'
import { openApiDocument } from './openapi.ts'
import { API_PAGE, E2B_OPENAPI_FILE, OPENAPI_FILE, withRouteTable } from './reference.ts'

/** Brings docs/reference up to date with the routes: `npm run docs -w packages/server`. */
const document = await openApiDocument()
await writeFile(OPENAPI_FILE, `${JSON.stringify(document, null, 2)}\n`)
await writeFile(E2B_OPENAPI_FILE, `${JSON.stringify(await e2bDocument(), null, 2)}\n`)
await writeFile(API_PAGE, withRouteTable(await readFile(API_PAGE, 'utf8'), document))
