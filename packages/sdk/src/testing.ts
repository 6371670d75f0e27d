import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'
import { Connection } from './connection.ts'
import { Icebox } from './icebox.ts'
import { Sandbox } from './sandbox.ts'

export interface Asked {
  method: string
  path: string
  query: URLSearchParams
  headers: http.IncomingHttpHeaders
  body: string
}

/**
 * A real HTTP server that answers as the test says: a protocol peer to test what the SDK does with good and bad answers.
 * It says nothing about Icebox's own server, which is tested by itself and through the CLI.
 */
export async function peer(
  test: TestContext,
  answer: (asked: Asked, response: http.ServerResponse) => void | Promise<void>,
): Promise<{ url: string; asked: Asked[]; server: http.Server; icebox: Icebox; sandbox: Sandbox }> {
  const asked: Asked[] = []
  const server = http.createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request.setEncoding('latin1')) body += chunk
    const url = new URL(request.url ?? '', 'http://peer')
    const one = {
      method: request.method ?? '',
      path: url.pathname,
      query: url.searchParams,
      headers: request.headers,
      body,
    }
    asked.push(one)
    await answer(one, response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  test.after(() => {
    server.closeAllConnections()
    server.close()
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const sandbox = new Sandbox(new Connection({ url, apiKey: 'key' }), SANDBOX)
  return { url, asked, server, icebox: new Icebox({ url, apiKey: 'key' }), sandbox }
}

export const SANDBOX = {
  id: 'abcdefghij0123456789',
  project: 'default',
  status: { state: 'Running' as const },
  metadata: {},
  entrypoint: [],
  size: { cpu: 1, memoryMiB: 512, diskMiB: 2048 },
  createdAt: '2026-01-01T00:00:00.000Z',
  onTimeout: 'kill' as const,
  pauseKind: 'memory' as const,
  autoResume: false,
  secure: true,
  publicTraffic: false,
}

export const sendJson = (response: http.ServerResponse, status: number, body: unknown): void => {
  response.writeHead(status, { 'content-type': 'application/json', 'x-request-id': 'request-1' })
  response.end(JSON.stringify(body))
}

export const NOT_FOUND = { code: 'NotFound', message: 'no sandbox is called x', remedy: 'List what exists.' }
