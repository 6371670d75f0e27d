import { IceboxError } from '@icebox/model'
import type { GuestLink } from './link.ts'
import { within } from './mux.ts'

/** Milliseconds that one call waits for the link to be there. */
const WAIT_MS = 10_000

/** A link that is still being made. What is asked meanwhile waits for it, for seconds; what comes of it then is the answer. */
export class LateLink implements GuestLink {
  readonly #link: Promise<GuestLink>
  readonly closed: Promise<void>

  constructor(link: Promise<GuestLink>) {
    this.#link = link
    this.closed = link.then(
      (made) => made.closed,
      () => undefined,
    )
  }

  detach(): void {
    void this.#link.then(
      (made) => made.detach(),
      () => undefined,
    )
  }

  async #made(signal: AbortSignal): Promise<GuestLink> {
    const wait = AbortSignal.timeout(WAIT_MS)
    try {
      return await within(this.#link, AbortSignal.any([signal, wait]))
    } catch (thrown) {
      if (signal.aborted || !wait.aborted) throw thrown
      throw new IceboxError('GuestFailed', 'the guest has not answered since the server came back', { cause: thrown })
    }
  }

  /** Until the link is there or cannot be made, however long that takes. */
  async release(...words: Parameters<GuestLink['release']>) {
    return (await within(this.#link, words[0])).release(...words)
  }

  async hello(...words: Parameters<GuestLink['hello']>) {
    return (await this.#made(words[1])).hello(...words)
  }

  async quiesce(...words: Parameters<GuestLink['quiesce']>) {
    return (await this.#made(words[0])).quiesce(...words)
  }

  async setXattr(...words: Parameters<GuestLink['setXattr']>) {
    return (await this.#made(words[3])).setXattr(...words)
  }

  async exec(...words: Parameters<GuestLink['exec']>) {
    return (await this.#made(words[1])).exec(...words)
  }

  async listExecs(...words: Parameters<GuestLink['listExecs']>) {
    return (await this.#made(words[0])).listExecs(...words)
  }

  async attach(...words: Parameters<GuestLink['attach']>) {
    return (await this.#made(words[2])).attach(...words)
  }

  async readFile(...words: Parameters<GuestLink['readFile']>) {
    return (await this.#made(words[2])).readFile(...words)
  }

  async writeFile(...words: Parameters<GuestLink['writeFile']>) {
    return (await this.#made(words[3])).writeFile(...words)
  }

  async stat(...words: Parameters<GuestLink['stat']>) {
    return (await this.#made(words[2])).stat(...words)
  }

  async list(...words: Parameters<GuestLink['list']>) {
    return (await this.#made(words[2])).list(...words)
  }

  async makeDirectory(...words: Parameters<GuestLink['makeDirectory']>) {
    return (await this.#made(words[2])).makeDirectory(...words)
  }

  async move(...words: Parameters<GuestLink['move']>) {
    return (await this.#made(words[3])).move(...words)
  }

  async symlink(...words: Parameters<GuestLink['symlink']>) {
    return (await this.#made(words[3])).symlink(...words)
  }

  async remove(...words: Parameters<GuestLink['remove']>) {
    return (await this.#made(words[2])).remove(...words)
  }

  async setAttributes(...words: Parameters<GuestLink['setAttributes']>) {
    return (await this.#made(words[3])).setAttributes(...words)
  }

  async watch(...words: Parameters<GuestLink['watch']>) {
    return (await this.#made(words[2])).watch(...words)
  }

  async dial(...words: Parameters<GuestLink['dial']>) {
    return (await this.#made(words[1])).dial(...words)
  }

  async metrics(...words: Parameters<GuestLink['metrics']>) {
    return (await this.#made(words[0])).metrics(...words)
  }
}
