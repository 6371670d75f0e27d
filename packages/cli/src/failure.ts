import { isIceboxError } from '@icebox/sdk'
import { UsageError } from './command.ts'
import { indented, note, paint } from './output.ts'
import { visibleJson, visibleLines } from './visible.ts'

/** An error as every part of Icebox reports it. */
export interface Failure {
  code: string
  message: string
  remedy: string
  details?: Readonly<Record<string, string | number | boolean>> | undefined
}

/** A refusal of the CLI itself. Thrown, never returned. */
export class Refusal extends Error implements Failure {
  readonly code: string
  readonly remedy: string
  /** To exit with, where it is not the command's usual one. */
  readonly status: number | undefined

  constructor(code: string, message: string, remedy: string, status?: number) {
    super(message)
    this.code = code
    this.remedy = remedy
    this.status = status
  }
}

/** What the operating system says no to, in the words of the registry of errors. */
const ERRNO: Record<string, readonly [code: string, remedy: string]> = {
  ENOENT: ['NotFound', 'Check the path.'],
  EEXIST: ['AlreadyExists', 'Choose another path, or remove what is there.'],
  EACCES: ['Forbidden', 'Use a path that you may read or write, or run as the user who may.'],
  EPERM: ['Forbidden', 'Run as the user who may do this (for `up`: root).'],
  EROFS: ['Forbidden', 'Use a path on a file system that can be written.'],
  ENOTDIR: ['InvalidArgument', 'Check the path: a part of it is not a directory.'],
  EISDIR: ['InvalidArgument', 'Name a file, not a directory.'],
  ENOTEMPTY: ['InvalidArgument', 'Choose another path, or remove what is there.'],
  ENOSPC: ['NoSpace', 'Free disk space, or use another disk.'],
  EDQUOT: ['NoSpace', 'Free disk space, or use another disk.'],
  EADDRINUSE: ['Conflict', 'Use another port.'],
}

const isFailure = (thrown: Error): thrown is Error & Failure =>
  'code' in thrown && typeof thrown.code === 'string' && 'remedy' in thrown && typeof thrown.remedy === 'string'

/** Anything thrown, as an error that people and programs can read. */
export function failureOf(thrown: unknown): Failure {
  if (isIceboxError(thrown)) return thrown.toJSON()
  if (thrown instanceof UsageError)
    return {
      code: 'InvalidArgument',
      message: thrown.message,
      remedy: 'See `icebox help`, or add --help to a command.',
    }
  if (!(thrown instanceof Error)) return failureOf(new Error(String(thrown)))
  const { message } = thrown
  if (isFailure(thrown)) {
    const details =
      thrown.details !== undefined && Object.keys(thrown.details).length > 0 ? { details: thrown.details } : {}
    return { code: thrown.code, message, remedy: thrown.remedy, ...details }
  }
  const errno = 'code' in thrown && typeof thrown.code === 'string' ? ERRNO[thrown.code] : undefined
  if (errno !== undefined) return { code: errno[0], message, remedy: errno[1] }
  return { code: 'Internal', message, remedy: 'This is a defect of Icebox. Report it with what you ran.' }
}

/** On stderr: as JSON for programs, in words for people. */
export function report(thrown: unknown, json: boolean): void {
  const failure = failureOf(thrown)
  if (json) {
    note(visibleJson(JSON.stringify({ error: failure })))
    return
  }
  const { stderr } = process
  stderr.write(`${paint(['red', 'bold'], 'error:', stderr)} ${indented(visibleLines(failure.message), 2)}\n`)
  stderr.write(`  ${paint('dim', '→', stderr)} ${indented(visibleLines(failure.remedy), 4)}\n`)
  if (failure.code === 'Internal' && thrown instanceof Error && !isIceboxError(thrown)) note(thrown.stack ?? '')
}
