import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Control, Project } from '@icebox/control'
import type { IceboxError, Sandbox } from '@icebox/model'
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { AttachedExecs } from './attached.ts'
import type { Streams } from './stream.ts'

/** What `GET /v1/info` tells the installation's own key. */
export const ServerInfo = z.object({
  version: z.string(),
  /** Name of the driver that runs the sandboxes. */
  driver: z.string(),
  dataDirectory: z.string(),
  pid: z.int(),
})
export type ServerInfo = z.infer<typeof ServerInfo>

export const SHUTDOWN_MODES = ['pause', 'keep', 'kill'] as const
/** What becomes of the running sandboxes when the server ends. */
export type ShutdownMode = (typeof SHUTDOWN_MODES)[number]

/** Passes on what is about to be written to a file: `announced` is how much that will be, where it is known; `what` is named in errors. */
export type WithinSpace = (
  content: AsyncIterable<Uint8Array>,
  file: string,
  announced: number | undefined,
  what: string,
) => AsyncIterable<Uint8Array>

/** What the routes work with. Only handlers may look at it: the OpenAPI document is made of the routes without one. */
export interface Context {
  readonly control: Control
  readonly info: ServerInfo
  /** Where uploads and exports are put while they are under way. */
  readonly temporaryDirectory: string
  /** Passes on what is about to be written to a file there, with room claimed for it. Ends with `NoSpace` when there is no more. */
  readonly withinSpace: WithinSpace
  /** Domains whose names `<port>-<id>.<domain>` are ports of sandboxes. */
  readonly domains: readonly string[]
  /** Whether the guest services of the sandbox want its access token. */
  readonly isSecure: (sandbox: Sandbox) => boolean
  readonly streams: Streams
  readonly execs: AttachedExecs
  /** Fires when the server begins to close. */
  readonly closing: AbortSignal
  /** The sockets of requests that came with `Upgrade: tcp`, and what was read of them already. */
  readonly upgrades: WeakMap<IncomingMessage, { socket: Duplex; head: Buffer }>
  readonly onShutdown: (mode: ShutdownMode) => void
}

export type App = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  ZodTypeProvider
>

declare module 'fastify' {
  interface FastifyRequest {
    /** The services of the project whose key it carries. Requests that need no key have none. */
    project: Project
    /** Whether it carries the installation's own key. */
    installation: boolean
    /** Fires when the key that it carries is revoked; absent: that cannot be. */
    revoked: AbortSignal | undefined
    /** For the log: the id of what the request made, when its path does not name it. */
    resource: string | undefined
    /** For the log: the error it was answered with. */
    failure: IceboxError | undefined
  }
  interface FastifyContextConfig {
    /** Needs no key. */
    public?: boolean
    /** Only for the installation's own key. */
    installation?: boolean
    /** Called so often that only failures are logged. */
    frequent?: boolean
  }
}
