import { IceboxError, type Sandbox } from '@icebox/model'
import type { Context } from '../context.ts'
import { beginDelete } from './delete.ts'
import { beginPause, pauseVerb } from './pause.ts'
import { isDue } from './time.ts'

/**
 * Deletes or pauses a sandbox whose time is over, once what else is under way has ended. An extension that was written before
 * the intent wins: `Conflict`. One that comes later finds the sandbox on its way.
 */
export async function expire(context: Context, { metadata: { name }, spec }: Sandbox): Promise<void> {
  const { operations } = context
  const check = (sandbox: Sandbox) => {
    if (!isDue(sandbox, Date.now())) throw new IceboxError('Conflict', `the time of ${name} is not over any more`)
  }
  const { settled } =
    spec.onTimeout === 'pause'
      ? await operations.exclusiveInTurn(name, pauseVerb(spec.pauseKind), () =>
          beginPause(context, name, { kind: spec.pauseKind, check }),
        )
      : // Not `delete`: whoever asks for that joins only what will delete in any case.
        await operations.exclusiveInTurn(name, 'expire', () => beginDelete(context, name, check))
  await settled
}
