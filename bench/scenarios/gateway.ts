import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, rm } from 'node:fs/promises'
import { Agent, createServer, get, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { withSandbox } from '../lab.ts'
import { atMost, interleave, REPORTED, result, timed } from '../measure.ts'
import type { Scenario } from '../scenario.ts'

/** Requests that are under way at the same time. */
const AT_ONCE = 50
const PORT = 8000
/** Says one word to each request, and for /large so many bytes as its argument says. */
const SERVICE = `
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
size, port = int(sys.argv[1]), int(sys.argv[2])
piece = bytes(65536)
class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        large = self.path.endswith('/large')
        self.send_response(200)
        self.send_header('Content-Length', str(size if large else 2))
        self.end_headers()
        if large:
            left = size
            while left > 0:
                left -= self.wfile.write(piece[:min(left, len(piece))])
        else:
            self.wfile.write(b'ok')
    def log_message(self, *_):
        pass
class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
server = Server(('127.0.0.1', port), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
`

/** Where a service answers, and what has to be told to get there. */
interface Target {
  base: string
  headers: Record<string, string>
}

/** Reads an answer to its end; gives how many bytes it had. */
async function read({ base, headers }: Target, path: string, agent: Agent): Promise<number> {
  const call = get(`${base}${path}`, { headers, agent })
  const [response] = await once(call, 'response')
  let bytes = 0
  for await (const chunk of response) bytes += chunk.length
  if (response.statusCode !== 200) throw new Error(`${base}${path} answered ${response.statusCode}`)
  return bytes
}

async function download(target: Target, size: number): Promise<void> {
  const agent = new Agent()
  try {
    const bytes = await read(target, '/large', agent)
    if (bytes !== size) throw new Error(`${bytes} of ${size} bytes came from ${target.base}`)
  } finally {
    agent.destroy()
  }
}

async function many(target: Target, count: number): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE })
  try {
    let left = count
    const worker = async () => {
      while (left > 0) {
        left -= 1
        await read(target, '/', agent)
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, worker))
  } finally {
    agent.destroy()
  }
}

/** The least that passes HTTP on, on a port of this machine. */
async function plainProxy(to: number): Promise<{ base: string; close(): void }> {
  const agent = new Agent({ keepAlive: true })
  const server = createServer((incoming, outgoing) => {
    const { method, url, headers } = incoming
    const onward = request({ host: '127.0.0.1', port: to, method, path: url, headers, agent }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(outgoing)
    })
    onward.on('error', () => outgoing.destroy())
    incoming.pipe(onward)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const close = () => {
    agent.destroy()
    server.closeAllConnections()
    server.close()
  }
  return { base: `http://127.0.0.1:${port}`, close }
}

export const gateway: Scenario = {
  name: 'gateway',
  summary: 'HTTP through a port of a sandbox: a large download, and many small requests',
  async run(lab, effort, signal) {
    const { icebox, apiKey, template } = await lab.stage()
    const script = join(lab.directory, 'service.py')
    await using file = await open(script, 'w')
    await file.writeFile(SERVICE)
    const { download: size, requests } = effort
    const outside = spawn('python3', [script, String(size), '0'], { stdio: ['ignore', 'pipe', 'inherit'] })
    try {
      const [said] = await once(outside.stdout, 'data')
      const proxy = await plainProxy(Number(String(said)))
      try {
        return await withSandbox(icebox.sandboxes.create({ template }), async (sandbox) => {
          await sandbox.files.write('/service.py', SERVICE)
          await sandbox.spawn(['python3', '/service.py', String(size), String(PORT)])
          const floor: Target = { base: proxy.base, headers: {} }
          const ours: Target = {
            base: `${icebox.url}/v1/sandboxes/${sandbox.id}/proxy/${PORT}`,
            headers: { 'x-api-key': apiKey },
          }
          await listening(ours, signal)
          const large = await interleave(
            effort.rounds.long,
            {
              floor: async () => [await timed(() => download(floor, size))],
              ours: async () => [await timed(() => download(ours, size))],
            },
            signal,
          )
          const small = await interleave(
            effort.rounds.long,
            {
              floor: async () => [await timed(() => many(floor, requests))],
              ours: async () => [await timed(() => many(ours, requests))],
            },
            signal,
          )
          const through = 'floor: the same program on this machine through a plain Node proxy'
          return [
            result(`gateway, ${Math.round(size / 1e6)} MB`, 'ms', large, atMost(2), [through]),
            result(`gateway, ${requests} requests, ${AT_ONCE} at once`, 'ms', small, REPORTED, ['no error', through]),
          ]
        })
      } finally {
        proxy.close()
      }
    } finally {
      outside.kill()
      await rm(script, { force: true })
    }
  },
}

async function listening(target: Target, signal: AbortSignal): Promise<void> {
  const agent = new Agent()
  try {
    for (;;) {
      const answered = await read(target, '/', agent).catch(() => 0)
      if (answered > 0) return
      await sleep(20, undefined, { signal })
    }
  } finally {
    agent.destroy()
  }
}
