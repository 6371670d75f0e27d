import type { ErrorCode, WireError } from '@icebox/model'

/**
 * Every failure the SDK reports: one the server answered with, or one of the way to it (`Unavailable`, `DeadlineExceeded`,
 * `GuestFailed`). `message` says what happened and why, `remedy` what to do next.
 */
export class IceboxError extends Error {
  override readonly name = 'IceboxError'
  readonly code: ErrorCode
  /** HTTP status of the answer; undefined when there was none, or when the error came within a stream or a fork's results. */
  readonly status: number | undefined
  readonly remedy: string
  /** Facts for programs, such as the name that was not found. */
  readonly details: Readonly<Record<string, string | number | boolean>>
  /** `X-Request-ID` of the answer, to find it in the server's log. */
  readonly requestId: string | undefined

  constructor(
    status: number | undefined,
    error: WireError,
    options: { cause?: unknown; requestId?: string | undefined } = {},
  ) {
    super(error.message, options.cause === undefined ? undefined : { cause: options.cause })
    // A newer server may know codes that this version does not; they are passed on as they are.
    this.code = error.code as ErrorCode
    this.status = status
    this.remedy = error.remedy
    this.details = error.details ?? {}
    this.requestId = options.requestId
  }

  /** As the API writes it. */
  toJSON(): WireError {
    const details = Object.keys(this.details).length > 0 ? { details: { ...this.details } } : {}
    return { code: this.code, message: this.message, remedy: this.remedy, ...details }
  }
}

const REMEDY_UNAVAILABLE = 'Start the server with `icebox up -d`, or name another one by its url (`--url`, ICEBOX_URL).'

export const unavailable = (message: string, cause?: unknown): IceboxError =>
  new IceboxError(undefined, { code: 'Unavailable', message, remedy: REMEDY_UNAVAILABLE }, { cause })

export const deadlineExceeded = (message: string): IceboxError =>
  new IceboxError(undefined, { code: 'DeadlineExceeded', message, remedy: 'Try again with a longer deadline.' })

export const guestFailed = (message: string, cause?: unknown): IceboxError =>
  new IceboxError(
    undefined,
    {
      code: 'GuestFailed',
      message,
      remedy: 'The process may still run: find it among the execs of the sandbox and attach to it again.',
    },
    { cause },
  )

/** What the server sent is not what this version of the SDK understands. */
export const notUnderstood = (what: string): IceboxError =>
  new IceboxError(undefined, {
    code: 'Internal',
    message: `the server's answer was not understood: ${what}`,
    remedy: 'Check that the url is that of an Icebox server and that server and SDK are of the same version.',
  })

/** Whether it is an error with one of the codes. */
export const isIceboxError = (thrown: unknown, ...codes: ErrorCode[]): thrown is IceboxError =>
  thrown instanceof IceboxError && (codes.length === 0 || codes.includes(thrown.code))
