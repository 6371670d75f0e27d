import { IceboxError, type Sandbox } from '@icebox/model'
import type { Context } from '../context.ts'
import { collectLogs } from './collect.ts'

/** A line in the sandbox's log for what became of it; of one that runs now the output is collected, too. */
export function logTransition(context: Context, sandbox: Sandbox, to?: 'deleted'): void {
  const { name } = sandbox.metadata
  if (to === 'deleted') {
    const failed = (error: unknown) =>
      context.log('warn', 'logs.remove.failed', { sandbox: name, error: IceboxError.from(error).message })
    context.operations.afterwards(context.logs.remove(name).catch(failed))
    return
  }
  const { state, reason, message } = sandbox.status
  const why = [reason, message].filter((part) => part !== undefined).join(': ')
  context.logs.append(name, { source: 'lifecycle', text: why === '' ? state : `${state} (${why})` })
  if (state === 'running') void collectLogs(context, sandbox)
}
