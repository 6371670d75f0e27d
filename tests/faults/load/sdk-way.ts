import { type Icebox, isIceboxError, type Sandbox } from '@icebox/sdk'
import { COUNT } from './counter.ts'
import { HalfDone } from './recorder.ts'
import { call, LONG_SECONDS, type Wanted, type Way } from './way.ts'

const READ = 'if [ -e "$1" ]; then echo there; cat "$1"; fi'

/** By our own SDK. */
export class SdkWay implements Way {
  readonly #icebox: Icebox
  readonly #handles = new Map<string, Sandbox>()

  constructor(icebox: Icebox) {
    this.#icebox = icebox
  }

  async create({ key, template, from, wakes }: Wanted): Promise<string> {
    const made = await this.#icebox.sandboxes.create({
      ...(from === undefined ? { template } : { snapshot: from }),
      ...{ idempotencyKey: key, metadata: { key }, secure: false },
      ...{ timeout: LONG_SECONDS, onTimeout: 'pause', autoResume: wakes },
      ...call(),
    })
    this.meet(made)
    return made.id
  }

  async pause(sandbox: string): Promise<void> {
    await (await this.handle(sandbox)).pause(call())
  }

  async resume(sandbox: string): Promise<void> {
    await (await this.handle(sandbox)).resume(call())
  }

  async endIn(sandbox: string, seconds: number): Promise<void> {
    await (await this.handle(sandbox)).renew({ timeout: seconds }, call())
  }

  async delete(sandbox: string): Promise<void> {
    await (await this.handle(sandbox)).delete(call())
  }

  async read(sandbox: string, file: string): Promise<string | null> {
    const text = await this.output(sandbox, ['sh', '-c', READ, 'sh', file])
    return text === '' ? null : text.replace(/^there\n/, '')
  }

  /** What it sends is no buffer, which the client would send twice when the connection breaks. */
  async upload(sandbox: string, file: string, lines: string[]): Promise<void> {
    const box = await this.handle(sandbox)
    await box.files.write(
      file,
      (async function* () {
        for (const line of lines) yield Buffer.from(line)
      })(),
      call(),
    )
  }

  count(sandbox: string): Promise<string> {
    return this.output(sandbox, ['cat', COUNT])
  }

  meet(box: Sandbox): void {
    this.#handles.set(box.id, box)
  }

  async handle(id: string): Promise<Sandbox> {
    const known = this.#handles.get(id)
    if (known !== undefined) return known
    const handle = await this.#icebox.sandboxes.connect(id, call())
    this.#handles.set(id, handle)
    return handle
  }

  /** What a command that has to work writes. One that began and is not known to have ended is half done. */
  async output(sandbox: string, argv: string[]): Promise<string> {
    const box = await this.handle(sandbox)
    const exec = box.exec(argv, call())
    let hasBegun = false
    exec.started.then(
      () => {
        hasBegun = true
      },
      () => undefined,
    )
    try {
      const { exitCode, signal, stdout, stderr } = await exec
      if (exitCode !== 0) throw new Error(`${argv.join(' ')} in ${sandbox} ended with ${exitCode ?? signal}: ${stderr}`)
      return stdout
    } catch (thrown) {
      if (hasBegun && isIceboxError(thrown)) throw new HalfDone(thrown.code)
      throw thrown
    }
  }
}
