import { firstLine } from './command.ts'
import { aptInstall, locate } from './packages.ts'
import type { Step } from './step.ts'
import { atLeast, versionIn } from './version.ts'

/** The oldest Rust that builds the guest agent: Debian 12's. */
export const RUST_MINIMUM = '1.63.0'

/** What `rustc --version` prints, when rustc and cargo are there and new enough. */
export async function usableRust(signal: AbortSignal): Promise<string | undefined> {
  if (!(await locate('cargo'))) return undefined
  const said = await firstLine('rustc', ['--version'], signal)
  const version = said && versionIn(said)
  return version && atLeast(version, RUST_MINIMUM) ? said : undefined
}

export const rustStep: Step = {
  name: 'Rust',
  why: 'builds the guest agent',
  remedy: `Install cargo and rustc ${RUST_MINIMUM} or newer (apt-get install cargo rustc), so that PATH finds them.`,
  isDone: usableRust,
  async run(say, signal) {
    await aptInstall(['cargo', 'rustc'], say, signal)
    const found = await usableRust(signal)
    if (!found) throw new Error(`the rustc that PATH finds is older than ${RUST_MINIMUM}`)
    return found
  },
}
