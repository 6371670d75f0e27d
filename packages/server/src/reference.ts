import { fileURLToPath } from 'node:url'
import type { OpenApiDocument } from './openapi.ts'

/** What docs/reference says of the API and can be made of the routes. */

const reference = (name: string): string => fileURLToPath(new URL(`../../../docs/reference/${name}`, import.meta.url))

export const OPENAPI_FILE = reference('openapi.json')
export const E2B_OPENAPI_FILE = reference('openapi-e2b.json')
export const API_PAGE = reference('api.md')

const BEGIN = '<!-- routes: made by `npm run docs -w packages/server` -->'
const END = '<!-- end of routes -->'

/** The page with its table of routes made anew. */
export function withRouteTable(page: string, { paths }: OpenApiDocument): string {
  const rows = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(
      ([method, { operationId, summary }]) =>
        `| \`${method.toUpperCase()} ${path}\` | ${operationId} | ${summary.replaceAll('|', '\\|')} |`,
    ),
  )
  const table = ['| route | operation | what it does |', '|---|---|---|', ...rows].join('\n')
  const [before, rest] = split(page, BEGIN)
  const [, after] = split(rest, END)
  return `${before}${BEGIN}\n${table}\n${END}${after}`
}

function split(text: string, mark: string): [string, string] {
  const at = text.indexOf(mark)
  if (at === -1) throw new Error(`docs/reference/api.md has no line ${mark}`)
  return [text.slice(0, at), text.slice(at + mark.length)]
}
