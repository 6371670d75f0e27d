import { IceboxError } from '@icebox/model'
import { type CommandOptions, command } from '../setup/command.ts'

/**
 * Runs a program that makes part of an image and gives its standard output. It dies with this process, whatever kills that.
 * Throws `Unavailable` when it is not installed (`packageName` has it), `NoSpace` when it says so, else `Internal`.
 */
export async function runProgram(
  program: string,
  args: string[],
  options: CommandOptions & { packageName: string; doing: string },
  signal: AbortSignal,
): Promise<string> {
  try {
    return await command('setpriv', ['--pdeathsig', 'KILL', '--', program, ...args], options, signal)
  } catch (thrown) {
    signal.throwIfAborted()
    const message = thrown instanceof Error ? thrown.message : String(thrown)
    const missing = /failed to execute ([^:\s]+)/.exec(message)?.[1]
    if (missing !== undefined)
      throw new IceboxError('Unavailable', `${missing} is not installed, which ${options.doing} needs`, {
        cause: thrown,
        remedy: `Install it as root: apt-get install ${options.packageName}`,
      })
    if (/No space left on device|ENOSPC/i.test(message))
      throw new IceboxError('NoSpace', `the disk is full while ${options.doing}`, { cause: thrown })
    throw new IceboxError('Internal', `${options.doing} failed: ${message}`, { cause: thrown })
  }
}
