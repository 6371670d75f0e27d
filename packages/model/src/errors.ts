/**
 * Every error a person or program can get from Icebox, in one table: its HTTP status and what to do about it.
 * What happened and why is the message, written where it happened.
 */
export const ERRORS = {
  InvalidArgument: { status: 400, remedy: 'Correct the named field and send the request again.' },
  Unauthorized: {
    status: 401,
    remedy:
      'Send the API key: set ICEBOX_API_KEY, or run as the user who owns the data directory, whose file `key` holds it.',
  },
  Forbidden: {
    status: 403,
    remedy: 'Call the server by its own address, from a program and not from a web page of another origin.',
  },
  NotFound: {
    status: 404,
    remedy:
      'List what exists (`icebox ps`, `icebox template list`, `icebox snapshot list`, `icebox image list`) and use one of those names or ids.',
  },
  Ambiguous: { status: 409, remedy: 'Give more characters of the id, or the whole of it.' },
  AlreadyExists: { status: 409, remedy: 'Choose another name, or delete the existing one first.' },
  Conflict: { status: 409, remedy: 'Wait until the operation under way has ended, then try again.' },
  InvalidState: {
    status: 409,
    remedy:
      'Bring the resource into a state that allows this (a paused sandbox: `icebox resume`; a failed one: `icebox rollback` or `icebox sandbox delete`).',
  },
  InUse: { status: 409, remedy: 'Delete what still needs it first; the message names it.' },
  StaleWrite: { status: 409, remedy: 'Read the resource again and repeat the change on what you read.' },
  WatchExpired: { status: 410, remedy: 'List again and watch from the resourceVersion of the list.' },
  TooLarge: { status: 413, remedy: 'Send less in one request, or stream it as a file.' },
  ImageInvalid: {
    status: 422,
    remedy: 'Use another image, or have it built again: this one cannot be unpacked safely.',
  },
  PlatformUnsupported: { status: 422, remedy: 'Use an image that has a linux/amd64 variant.' },
  SnapshotIncompatible: {
    status: 422,
    remedy: 'Restore it on a machine and with a version as the message names, or use a filesystem snapshot.',
  },
  SnapshotCorrupt: {
    status: 422,
    remedy: 'Run `icebox snapshot verify` to see what is damaged; restore another snapshot, or rebuild the template.',
  },
  SnapshotUntrusted: {
    status: 422,
    remedy:
      'If you know who has that key (they see it with `icebox key show`), trust it: `icebox key trust KEY`, on the machine of the server.',
  },
  TooManyRequests: { status: 429, remedy: 'Wait a moment and try again.' },
  Internal: {
    status: 500,
    remedy: 'This is a defect of Icebox. Report it with the server log (`<data directory>/server.log`).',
  },
  NotImplemented: { status: 501, remedy: 'This cannot be done by the version you run.' },
  RegistryUnreachable: {
    status: 502,
    remedy: 'Check the registry’s name, the network and the credentials in the docker config file.',
  },
  GuestFailed: {
    status: 502,
    remedy:
      'See `icebox sandbox show`: it says why a sandbox has failed. One whose guest does not answer can be rolled back or deleted.',
  },
  Unavailable: { status: 503, remedy: 'Run `icebox doctor` to see what is missing.' },
  DeadlineExceeded: { status: 504, remedy: 'Try again with a longer deadline.' },
  NoSpace: {
    status: 507,
    remedy:
      'Free space on the disk of the data directory (`icebox collect --dry-run` says what can go, `icebox snapshot list` what is large), or use a larger one.',
  },
  NoMemory: { status: 507, remedy: 'Pause or delete sandboxes, or use a template with less memory.' },
} as const satisfies Record<string, { status: number; remedy: string }>

export type ErrorCode = keyof typeof ERRORS

/** The error every border speaks: a code of the registry, what happened and why in words, and what to do next. */
export class IceboxError extends Error {
  override readonly name = 'IceboxError'
  readonly code: ErrorCode
  readonly status: number
  readonly remedy: string
  /** Facts for programs, such as the name that was not found. Never secrets. */
  readonly details: Readonly<Record<string, string | number | boolean>>

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; remedy?: string; details?: Record<string, string | number | boolean> } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.status = ERRORS[code].status
    this.remedy = options.remedy ?? ERRORS[code].remedy
    this.details = options.details ?? {}
  }

  /** Normalises anything thrown: ours stay as they are, a full disk and an abort get their codes, the rest is Internal. */
  static from(thrown: unknown): IceboxError {
    if (thrown instanceof IceboxError) return thrown
    const message = thrown instanceof Error ? thrown.message : String(thrown)
    const errno = thrown instanceof Error && 'code' in thrown ? thrown.code : undefined
    if (errno === 'ENOSPC' || errno === 'EDQUOT')
      return new IceboxError('NoSpace', `the disk is full: ${message}`, { cause: thrown })
    if (thrown instanceof DOMException && thrown.name === 'TimeoutError')
      return new IceboxError('DeadlineExceeded', 'the deadline passed before the work was done', { cause: thrown })
    if (thrown instanceof Error && thrown.name === 'AbortError')
      return new IceboxError('DeadlineExceeded', 'the work was aborted before it was done', { cause: thrown })
    return new IceboxError('Internal', message, { cause: thrown })
  }
}

/** True for an IceboxError of one of the codes. */
export const isError = (thrown: unknown, ...codes: ErrorCode[]): thrown is IceboxError =>
  thrown instanceof IceboxError && codes.includes(thrown.code)
