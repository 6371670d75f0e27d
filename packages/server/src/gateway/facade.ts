import type { IncomingMessage, ServerResponse } from 'node:http'

/** Where in a sandbox a request goes. */
export interface Place {
  /** Id of the sandbox; nobody has looked yet whether there is one. */
  sandbox: string
  /** Path and query, as a service inside would see them. */
  path: string
  /** Whether the request carried a valid key of the sandbox's project. */
  key: boolean
}

/**
 * A service of ours that stands on a port of every sandbox. It finds out itself who may call it. What it throws before the head
 * of its answer is sent is answered by the gateway: `NotFound` and `InvalidState` as for a sandbox that is not there or not running.
 */
export type Facade = (request: IncomingMessage, response: ServerResponse, at: Place) => void | Promise<void>
