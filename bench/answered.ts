import type { CreateOptions, Icebox, Sandbox } from '@icebox/sdk'
import { FloorContainer } from './floor/container.ts'
import type { FloorSnapshot, Stage } from './lab.ts'

/** The shortest thing that shows that a sandbox works. */
export const TRUE = ['/bin/true']

export async function execTrue(sandbox: Sandbox): Promise<void> {
  const { exitCode } = await sandbox.exec(TRUE)
  if (exitCode !== 0) throw new Error(`${TRUE.join(' ')} ended with ${exitCode} in ${sandbox.id}`)
}

/** Runs `count` of the same at once. All are waited for, also when one fails; gives how many milliseconds that took. */
async function atOnce(count: number, work: (index: number) => Promise<void>): Promise<number> {
  const started = performance.now()
  const outcomes = await Promise.allSettled(Array.from({ length: count }, (_, index) => work(index)))
  const milliseconds = performance.now() - started
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
  return milliseconds
}

/** From the first HTTP request until each of `count` new sandboxes has answered an exec. They are deleted afterwards. */
export async function createAnswered(icebox: Icebox, options: CreateOptions, count: number): Promise<number> {
  const made: Sandbox[] = []
  try {
    return await atOnce(count, async () => {
      const sandbox = await icebox.sandboxes.create(options)
      made.push(sandbox)
      await execTrue(sandbox)
    })
  } finally {
    await Promise.all(made.map((sandbox) => sandbox.delete()))
  }
}

/** The same by hand. */
export async function restoreAnswered(
  stage: Stage,
  { directory, plan }: FloorSnapshot,
  kind: 'memory' | 'filesystem',
  count: number,
  signal: AbortSignal,
): Promise<number> {
  const containers = Array.from({ length: count }, () => new FloorContainer(stage.floor))
  try {
    return await atOnce(count, async (index) => {
      const container = containers[index]
      if (container === undefined) return
      await container.create(plan, kind === 'filesystem' ? directory : undefined, signal)
      if (kind === 'memory') await container.restore(directory, signal)
      else await container.start(signal)
      await container.greet(signal)
      await container.exec(TRUE, signal)
    })
  } finally {
    await Promise.all(containers.map((container) => container.destroy()))
  }
}
