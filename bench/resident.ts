import type { Sandbox } from '@icebox/sdk'
import { type Stage, withSandbox } from './lab.ts'

const PROGRAM = `
import os, sys, time
held = os.urandom(int(sys.argv[1]) << 20)
print('held', flush=True)
while True:
    time.sleep(3600)
`

/** A sandbox of the template in which a process holds so many MiB that do not compress and are not zero. */
export async function withResident<R>(
  stage: Stage,
  mebibytes: number,
  work: (sandbox: Sandbox) => Promise<R>,
): Promise<R> {
  return withSandbox(stage.icebox.sandboxes.create({ template: stage.template }), async (sandbox) => {
    for await (const event of sandbox.exec(['python3', '-c', PROGRAM, String(mebibytes)])) {
      if (event.type === 'output' && event.stream === 'stdout') break
      if (event.type === 'exit') throw new Error(`${mebibytes} MiB could not be held: ${JSON.stringify(event.exit)}`)
    }
    return await work(sandbox)
  })
}
