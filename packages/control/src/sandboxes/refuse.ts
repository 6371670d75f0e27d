import { IceboxError, type Sandbox } from '@icebox/model'

/** Throws that the sandbox is in no state for the verb, and why it is in the one it is. */
export function refuse(sandbox: Sandbox, verb: string): never {
  const { state, message } = sandbox.status
  throw new IceboxError(
    'InvalidState',
    `cannot ${verb} ${sandbox.metadata.name}: it is ${state}${message === undefined ? '' : ` (${message})`}`,
  )
}
