import { Refusal } from '../failure.ts'
import { isRunning, readServerFile } from './deaths.ts'
import { supervisorOf } from './supervision.ts'

/** Throws Conflict while a supervisor has the data directory, also when its server has just died. */
export async function requireNoSupervisor(dataDirectory: string): Promise<void> {
  const supervisor = await supervisorOf(dataDirectory)
  if (supervisor === undefined) return
  const server = await readServerFile(dataDirectory)
  const message =
    server !== undefined && (await isRunning(server))
      ? `the data directory ${dataDirectory} is in use by process ${server.pid}, which \`icebox up -d\` started`
      : `the server of ${dataDirectory} has died, and process ${supervisor.pid} is about to start it again`
  throw Object.assign(new Refusal('Conflict', message, 'Use that server, or end it with `icebox down`.'), {
    details: { pid: supervisor.pid },
  })
}
