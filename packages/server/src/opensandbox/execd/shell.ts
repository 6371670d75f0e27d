import { type ExecInput, type ExecSession, type Guest, isError } from '@icebox/model'

/** With bash where there is one, else with sh: what the images of agents have differs. */
export async function execShell(
  guest: Guest,
  argvOf: (shell: 'bash' | 'sh') => string[],
  request: Omit<ExecInput, 'argv'>,
  signal: AbortSignal,
): Promise<ExecSession> {
  try {
    return await guest.exec({ ...request, argv: argvOf('bash') }, signal)
  } catch (thrown) {
    // No bash, or no working directory: with sh it shows which.
    if (!isError(thrown, 'NotFound')) throw thrown
    return guest.exec({ ...request, argv: argvOf('sh') }, signal)
  }
}
