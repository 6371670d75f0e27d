import type { Guest, Hello } from '@icebox/model'

/**
 * The byte stream to the agent of one machine, and what can be asked over it. Made by `attach` on two open file
 * descriptors (or one socket); lives until the machine dies or `detach`.
 */
export interface GuestLink extends Guest {
  /** Gives a booted or restored guest its time, entropy, identity and environment, and lets its processes go on. */
  hello(hello: Hello, signal: AbortSignal): Promise<void>
  /** Before a save: takes no new work, finishes what is under way, syncs the disk, holds user processes. */
  quiesce(signal: AbortSignal): Promise<void>
  /** After a save, in the source: work and processes go on. */
  release(signal: AbortSignal): Promise<void>
  /** Gives exactly this absolute path an extended attribute, as root; a symlink is not followed. */
  setXattr(path: Uint8Array, name: string, value: Uint8Array, signal: AbortSignal): Promise<void>
  /** Resolves when the stream has ended: the guest is gone, or `detach` was called. */
  readonly closed: Promise<void>
  /** Lets go of the stream; the guest's processes go on. */
  detach(): void
}
