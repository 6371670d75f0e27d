import {
  BuildTemplate,
  CollectResult,
  ConnectSandbox,
  CreateApiKey,
  CreateSandbox,
  CreateSnapshot,
  ExecExit,
  ExecInfo,
  ExecRequest,
  FileInfo,
  ForkResult,
  ForkSandbox,
  LogEntry,
  NewApiKey,
  Pagination,
  PauseSandbox,
  ProgressLine,
  PullImage,
  RenewSandbox,
  RollbackSandbox,
  SandboxStats,
  Size,
  WireApiKey,
  WireError,
  WireEvent,
  WireImage,
  WireSandbox,
  WireSnapshot,
  WireTemplate,
  WireUsage,
} from '@icebox/model'
import { z } from 'zod'

/** Schemas with a name of their own in the OpenAPI document. */
const NAMED = {
  Error: WireError,
  Sandbox: WireSandbox,
  Snapshot: WireSnapshot,
  Template: WireTemplate,
  Image: WireImage,
  Size,
  Pagination,
  CreateSandbox,
  ForkSandbox,
  ForkResult,
  CreateSnapshot,
  PauseSandbox,
  ConnectSandbox,
  RollbackSandbox,
  RenewSandbox,
  BuildTemplate,
  PullImage,
  Progress: ProgressLine,
  SandboxStats,
  CreateApiKey,
  ApiKey: WireApiKey,
  NewApiKey,
  Usage: WireUsage,
  CollectResult,
  LogEntry,
  Event: WireEvent,
  ExecRequest,
  ExecInfo,
  ExecExit,
  FileInfo,
}
for (const [id, schema] of Object.entries(NAMED)) z.globalRegistry.add(schema, { id })

/** A body or answer of raw bytes. Bodies are streamed by their handlers: nothing is parsed, whatever the Content-Type. */
export const Bytes = z.unknown().meta({ type: 'string', format: 'binary' })
export const Nothing = z.undefined()

const refused = {
  description: 'What went wrong and what to do',
  content: { 'application/json': { schema: WireError } },
}
/** A body that may be left out. */
export const optional = <T extends z.ZodType>(body: T) => z.preprocess((given) => given ?? {}, body)

/** What every route may answer besides its own answers. What Icebox itself does wrong (500) is nothing to count on. */
export const FAILURES = { '4xx': refused, 502: refused, 503: refused, 504: refused, 507: refused }

/** An answer of bytes or lines of JSON. */
export const streamed = (contentType: string, schema: z.ZodType, description: string) => ({
  description,
  content: { [contentType]: { schema } },
})

/** `id` is an id, a name, or a unique prefix of an id. */
export const Ref = z.object({ id: z.string().min(1) })
