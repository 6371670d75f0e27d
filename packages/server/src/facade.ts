import type { IncomingMessage, ServerResponse } from 'node:http'

/** Where a request for a sandbox is meant to arrive. */
export interface Place {
  /** Id of the sandbox. */
  sandbox: string
  /** Path and query as a service inside would see them. */
  path: string
  /** A key of the sandbox's project came with the request and is good. */
  key?: boolean
}

/** Answers requests for a port of sandboxes in place of a service inside. It ends every response it is given. */
export type Facade = (request: IncomingMessage, response: ServerResponse, at: Place) => void | Promise<void>
