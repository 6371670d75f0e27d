import { createServer, type Server } from 'node:http'
import { createServer as createServer2, type Http2Server } from 'node:http2'
import { createClient, type Transport } from '@connectrpc/connect'
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-node'
import type { EnvdSandbox, Request, Response } from './call.ts'
import { type EnvdOptions, envdFacade } from './facade.ts'
import { Filesystem } from './generated/filesystem_pb.js'
import { Process } from './generated/process_pb.js'

export type { MessageInitShape } from '@bufbuild/protobuf'
export { timestampDate } from '@bufbuild/protobuf/wkt'
export { Code, ConnectError } from '@connectrpc/connect'
export { signatureOf } from './access.ts'
export type { EnvdSandbox } from './call.ts'
export * from './generated/filesystem_pb.js'
export * from './generated/process_pb.js'

export const SANDBOX: EnvdSandbox = {
  id: 'sandbox1',
  running: true,
  secure: false,
  accessToken: 'the-token',
  template: 'base',
  env: {},
  defaults: { user: 'user', workingDir: '/home/user' },
}

/** How a client speaks; by default the Connect protocol with JSON over HTTP/1.1. */
export interface Speaking {
  binary?: boolean
  http2?: boolean
  grpcWeb?: boolean
}

/** For tests. The façade on ports of its own, for HTTP/1.1 and for HTTP/2. */
export class EnvdServer {
  readonly #servers: [Server, Http2Server]
  readonly url: string
  readonly http2Url: string

  private constructor(servers: [Server, Http2Server]) {
    this.#servers = servers
    const [url = '', http2Url = ''] = servers.map((server) => {
      const address = server.address()
      return `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`
    })
    this.url = url
    this.http2Url = http2Url
  }

  static async start(options: EnvdOptions, sandbox = SANDBOX.id): Promise<EnvdServer> {
    const facade = envdFacade(options)
    const serve = (request: Request, response: Response) => {
      void facade(request, response, { sandbox, path: request.url ?? '' })
    }
    const servers: [Server, Http2Server] = [createServer(serve), createServer2({}, serve)]
    for (const server of servers) await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return new EnvdServer(servers)
  }

  process(how?: Speaking) {
    return createClient(Process, this.#transport(how))
  }

  filesystem(how?: Speaking) {
    return createClient(Filesystem, this.#transport(how))
  }

  #transport(how: Speaking = {}): Transport {
    const options = {
      baseUrl: how.http2 ? this.http2Url : this.url,
      httpVersion: how.http2 ? ('2' as const) : ('1.1' as const),
      useBinaryFormat: how.binary ?? false,
    }
    return how.grpcWeb ? createGrpcWebTransport(options) : createConnectTransport(options)
  }

  async stop(): Promise<void> {
    const [http] = this.#servers
    http.closeAllConnections()
    for (const server of this.#servers) server.close()
  }
}
