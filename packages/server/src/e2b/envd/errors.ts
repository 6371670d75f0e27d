import { Code, ConnectError } from '@connectrpc/connect'
import { type ErrorCode, IceboxError } from '@icebox/model'

/** What envd's clients are told for each of our errors: the code of an RPC, and the status of a REST request. */
const TOLD: Record<ErrorCode, { rpc: Code; http: number }> = {
  InvalidArgument: { rpc: Code.InvalidArgument, http: 400 },
  Unauthorized: { rpc: Code.Unauthenticated, http: 401 },
  Forbidden: { rpc: Code.PermissionDenied, http: 403 },
  NotFound: { rpc: Code.NotFound, http: 404 },
  Ambiguous: { rpc: Code.InvalidArgument, http: 400 },
  AlreadyExists: { rpc: Code.AlreadyExists, http: 400 },
  Conflict: { rpc: Code.Aborted, http: 409 },
  InvalidState: { rpc: Code.FailedPrecondition, http: 400 },
  InUse: { rpc: Code.FailedPrecondition, http: 409 },
  StaleWrite: { rpc: Code.Aborted, http: 409 },
  WatchExpired: { rpc: Code.OutOfRange, http: 410 },
  TooLarge: { rpc: Code.ResourceExhausted, http: 413 },
  ImageInvalid: { rpc: Code.FailedPrecondition, http: 422 },
  PlatformUnsupported: { rpc: Code.FailedPrecondition, http: 422 },
  SnapshotIncompatible: { rpc: Code.FailedPrecondition, http: 422 },
  SnapshotCorrupt: { rpc: Code.DataLoss, http: 422 },
  SnapshotUntrusted: { rpc: Code.FailedPrecondition, http: 422 },
  TooManyRequests: { rpc: Code.ResourceExhausted, http: 429 },
  Internal: { rpc: Code.Internal, http: 500 },
  NotImplemented: { rpc: Code.Unimplemented, http: 501 },
  RegistryUnreachable: { rpc: Code.Unavailable, http: 502 },
  GuestFailed: { rpc: Code.Unavailable, http: 502 },
  Unavailable: { rpc: Code.Unavailable, http: 503 },
  DeadlineExceeded: { rpc: Code.DeadlineExceeded, http: 504 },
  NoSpace: { rpc: Code.ResourceExhausted, http: 507 },
  NoMemory: { rpc: Code.ResourceExhausted, http: 507 },
}

/** A refusal in envd's own shape, with a status that is not one of ours. */
export class RestError extends Error {
  override readonly name = 'RestError'
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/** A guest's refusal that has no errno and finds nothing is about the user: files that are missing have one. */
const isUnknownUser = (error: IceboxError): boolean =>
  error.code === 'NotFound' && error.details.errno === undefined && error.message.startsWith('no ')

/** Of whatever was thrown: what an RPC ends with. */
export function rpcError(thrown: unknown): ConnectError {
  if (thrown instanceof ConnectError) return thrown
  const error = IceboxError.from(thrown)
  if (isUnknownUser(error)) return new ConnectError(`invalid username: ${error.message}`, Code.Unauthenticated)
  return new ConnectError(error.message, TOLD[error.code].rpc)
}

/** Of whatever was thrown: how a REST request is answered. */
export function restError(thrown: unknown): RestError {
  if (thrown instanceof RestError) return thrown
  const error = IceboxError.from(thrown)
  if (isUnknownUser(error)) return new RestError(401, `error looking up user: ${error.message}`)
  if (error.code === 'NoSpace') return new RestError(507, `not enough disk space available: ${error.message}`)
  return new RestError(TOLD[error.code].http, error.message)
}
