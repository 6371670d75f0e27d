import { type ExecInput, type Guest, newExecutionId } from '@icebox/model'
import { run, SIZE } from '../../packages/node/src/driver/conformance.ts'
import { GvisorInstallation, testImage } from '../../packages/node/src/driver/gvisor/testing.ts'
import { type EnvdSandbox, EnvdServer, SANDBOX } from '../../packages/server/src/e2b/envd/testing.ts'

const ACCOUNT = `useradd -m -u 1000 -s /bin/bash user && chmod 755 /home/user`

/** A real sandbox under gVisor with a user `user`, and the façade in front of it. */
export class EnvdSandboxUnderTest {
  readonly #installation: GvisorInstallation
  readonly server: EnvdServer
  readonly guest: Guest
  /** What the façade is told of the sandbox; tests may change it. */
  readonly sandbox: { -readonly [K in keyof EnvdSandbox]: EnvdSandbox[K] }

  private constructor(
    installation: GvisorInstallation,
    server: EnvdServer,
    guest: Guest,
    sandbox: EnvdSandboxUnderTest['sandbox'],
  ) {
    this.#installation = installation
    this.server = server
    this.guest = guest
    this.sandbox = sandbox
  }

  static async start(signal: AbortSignal): Promise<EnvdSandboxUnderTest> {
    const installation = await GvisorInstallation.make(signal)
    try {
      await installation.driver.adopt(signal)
      const spec = { imageDigest: (await testImage(signal)).digest, size: SIZE }
      const { execution, link } = await installation.driver.boot(newExecutionId(), spec, signal)
      const sandbox = { ...SANDBOX, env: { FROM_SANDBOX: 'yes' } }
      await link.hello(
        {
          sandbox: sandbox.id,
          hostname: sandbox.id,
          machineId: '0123456789abcdef0123456789abcdef',
          env: sandbox.env,
          defaults: sandbox.defaults,
        },
        signal,
      )
      const made = await run(link, { argv: ['/bin/sh', '-c', ACCOUNT], user: 'root', cwd: '/' }, signal)
      if (made.code !== 0) throw new Error(`no account: ${made.stderr}`)
      const server = await EnvdServer.start({
        find: async () => sandbox,
        reach: async () => ({ execution, guest: link }),
      })
      return new EnvdSandboxUnderTest(installation, server, link, sandbox)
    } catch (thrown) {
      await installation.remove()
      throw thrown
    }
  }

  async stop(): Promise<void> {
    await this.server.stop()
    await this.#installation.remove()
  }

  /** `path` with its query. */
  fetch(path: string, init?: RequestInit): Promise<Response> {
    return fetch(this.server.url + path, init)
  }

  /** Runs a shell's command in the sandbox as root, by no way of the façade. Gives its output. */
  async shell(command: string, signal: AbortSignal): Promise<string> {
    const input: ExecInput = { argv: ['/bin/sh', '-c', command], user: 'root', cwd: '/' }
    const session = await this.guest.exec(input, signal)
    const parts: Uint8Array[] = []
    for await (const event of session.events) if (event.type === 'output') parts.push(event.data)
    return Buffer.concat(parts).toString()
  }
}

/** The header that names a user. */
export const as = (user: string): { headers: Record<string, string> } => ({
  headers: { authorization: `Basic ${Buffer.from(`${user}:`).toString('base64')}` },
})
