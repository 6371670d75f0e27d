import { createHash } from 'node:crypto'
import { copyFile, link, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AGENT_NAME } from './spec.ts'

/** Hard link where that is possible, so that all sandboxes share the agent in the page cache; else a copy. */
export async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to)
  } catch {
    await copyFile(from, to)
  }
}

/**
 * The guest agents of one data directory: `<directory>/<sha256>`, never changed once there. A restored agent goes on with the
 * file it was started from, so each snapshot holds its own.
 */
export class Agents {
  readonly #directory: string
  readonly #source: string
  #current: Promise<string> | undefined

  constructor(directory: string, source: string) {
    this.#directory = directory
    this.#source = source
  }

  /** sha256 of the agent that new machines get. It is copied into the data directory on first use. */
  current(): Promise<string> {
    this.#current ??= this.#import().catch((thrown) => {
      this.#current = undefined
      throw thrown
    })
    return this.#current
  }

  async #import(): Promise<string> {
    const digest = createHash('sha256')
      .update(await readFile(this.#source))
      .digest('hex')
    await mkdir(this.#directory, { recursive: true })
    const known = await readdir(this.#directory)
    if (!known.includes(digest)) {
      const draft = join(this.#directory, `${digest}.new`)
      await copyFile(this.#source, draft)
      await rename(draft, join(this.#directory, digest))
    }
    // Machines and snapshots have links of their own.
    for (const name of known) if (name !== digest) await rm(join(this.#directory, name), { force: true })
    return digest
  }

  /** Puts the agent into a new directory, which a sandbox then sees. */
  async install(directory: string, agent: { digest: string; file?: string }): Promise<void> {
    await mkdir(directory)
    await linkOrCopy(agent.file ?? join(this.#directory, agent.digest), join(directory, AGENT_NAME))
  }
}
