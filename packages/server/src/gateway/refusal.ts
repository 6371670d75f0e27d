import type { IncomingMessage, ServerResponse } from 'node:http'
import type { IceboxError } from '@icebox/model'
import { requestId } from '../app.ts'
import type { Address } from './address.ts'

/** What the gateway itself answers, in the shape that E2B's clients know. */
export interface Refusal {
  readonly sandboxId?: string
  readonly message: string
  readonly port?: number
  /** The status of the answer. */
  readonly code: number
}

/** The answer for what went wrong before the service inside had answered. */
export function refusalOf(error: IceboxError, address: Address | undefined): Refusal {
  if (address === undefined) return { message: error.message, code: error.status }
  const { sandbox, port } = address
  const { code, message, status, details } = error
  if (code === 'NotFound' && details.port !== undefined)
    return { sandboxId: sandbox, message: 'The sandbox is running but port is not open', port, code: 502 }
  if (code === 'NotFound') return { sandboxId: sandbox, message: 'The sandbox was not found', code: 502 }
  if (code === 'InvalidState') return { sandboxId: sandbox, message, code: 502 }
  return { sandboxId: sandbox, message, port, code: status }
}

/** Whether what Accept says ranks a page for people before JSON, as browsers do. */
export function prefersPage(accept: string | undefined): boolean {
  const rank = (type: string): number => {
    let best = 0
    for (const range of (accept ?? '').toLowerCase().split(',')) {
      const [name, ...parameters] = range.split(';').map((part) => part.trim())
      if (name !== type) continue
      const quality = parameters.find((parameter) => parameter.startsWith('q='))
      best = Math.max(best, quality === undefined ? 1 : Number(quality.slice(2)) || 0)
    }
    return best
  }
  const page = rank('text/html')
  return page > 0 && page >= rank('application/json')
}

const escaped = (text: string): string => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)

function page({ sandboxId, message, port, code }: Refusal): string {
  const facts = [sandboxId === undefined ? '' : `Sandbox ${sandboxId}`, port === undefined ? '' : `Port ${port}`]
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${code} – Icebox</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 36rem; margin: 20vh auto; padding: 0 1rem }
h1 { font-size: 1.25rem }
p { opacity: .7 }
</style>
</head>
<body>
<h1>${escaped(message)}</h1>
<p>${[...facts.filter((fact) => fact !== ''), `Status ${code}`].map(escaped).join(' · ')}</p>
</body>
</html>
`
}

/** Answers with it: as a page to browsers, else as JSON. Nothing when the head of an answer has been sent. */
export function refuse(request: IncomingMessage, response: ServerResponse, refusal: Refusal): void {
  if (response.headersSent || response.destroyed) return
  const html = prefersPage(request.headers.accept)
  const body = html ? page(refusal) : JSON.stringify(refusal)
  response.writeHead(refusal.code, {
    'content-type': html ? 'text/html; charset=utf-8' : 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-request-id': requestId(request),
    ...(refusal.code === 429 || refusal.code === 503 ? { 'retry-after': '1' } : {}),
  })
  response.end(request.method === 'HEAD' ? undefined : body)
}
