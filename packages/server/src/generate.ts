import { readFile, writeFile } from 'node:fs/promises'
import { openApiDocument } from './openapi.ts'
import { API_PAGE, OPENAPI_FILE, withRouteTable } from './reference.ts'

/** Brings docs/reference up to date with the routes: `npm run docs -w packages/server`. */
const document = await openApiDocument()
await writeFile(OPENAPI_FILE, `${JSON.stringify(document, null, 2)}\n`)
await writeFile(API_PAGE, withRouteTable(await readFile(API_PAGE, 'utf8'), document))
