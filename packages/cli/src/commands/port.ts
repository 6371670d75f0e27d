import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { isIceboxError, type Sandbox } from '@icebox/sdk'
import { SANDBOX } from '../arguments.ts'
import { define, SERVER_FLAGS, UsageError } from '../command.ts'
import { failureOf, Refusal } from '../failure.ts'
import { note, print, printJson } from '../output.ts'
import { serverOf } from '../server.ts'

function ports(text: string): { remote: number; local: number } {
  const [, remote, local = remote] = /^(\d{1,5})(?::(\d{1,5}))?$/.exec(text) ?? []
  const numbers = { remote: Number(remote), local: Number(local) }
  if (!(numbers.remote >= 1 && numbers.remote <= 65_535 && numbers.local <= 65_535))
    throw new UsageError(`PORT must be such as 8080 or 8080:9090, not ${JSON.stringify(text)}`)
  return numbers
}

async function forward(socket: Socket, sandbox: Sandbox, port: number): Promise<void> {
  try {
    const inside = await sandbox.port(port)
    // Each half ends on its own, as TCP has it.
    await Promise.all([pipeline(socket, inside, { end: true }), pipeline(inside, socket, { end: true })])
  } catch (thrown) {
    socket.destroy()
    // Who is told here is the person that runs `port`: the program that connected only sees the connection end.
    if (isIceboxError(thrown)) note(`port ${port}: ${failureOf(thrown).message}`)
  }
}

/** A sandbox on its way to running is waited for by the server, at the first connection. */
const REACHABLE: readonly Sandbox['resource']['status']['state'][] = ['Running', 'Pending', 'Resuming']

export const command = define({
  arguments: [
    SANDBOX,
    { name: 'port[:local]', summary: 'Port inside, and the one of 127.0.0.1 here (the same by default; 0: any).' },
  ],
  flags: SERVER_FLAGS,
  async run({ arguments: given, flags }) {
    const { remote, local } = ports(given['port[:local]'])
    const sandbox = await serverOf(flags).sandboxes.connect(given.sandbox)
    const { state } = sandbox.resource.status
    if (!REACHABLE.includes(state))
      throw new Refusal(
        'InvalidState',
        `sandbox ${sandbox.id} is ${state.toLowerCase()}, not running`,
        state === 'Paused' ? `Resume it: \`icebox resume ${given.sandbox}\`.` : 'See `icebox sandbox show` for why.',
      )
    const server = createServer({ allowHalfOpen: true }, (socket) => void forward(socket, sandbox, remote))
    server.listen(local, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const bound = typeof address === 'object' && address !== null ? address.port : local
    if (flags.json) printJson({ sandboxId: sandbox.id, port: remote, local: { host: '127.0.0.1', port: bound } })
    else print(`127.0.0.1:${bound} -> port ${remote} of ${sandbox.id}; Ctrl-C ends it`)
    await once(server, 'close')
    return 0
  },
})
