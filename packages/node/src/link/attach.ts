import { randomInt } from 'node:crypto'
import { constants, openSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { IceboxError } from '@icebox/model'
import { encodeFrame, KIND, PADDING } from './frame.ts'
import { MuxedGuestLink } from './guest-link.ts'
import type { GuestLink } from './link.ts'
import { Mux, within } from './mux.ts'
import { PayloadWriter } from './payload.ts'

const { O_NONBLOCK, O_RDONLY, O_WRONLY } = constants

/**
 * Takes the link to a guest by the two FIFOs in its machine's run directory, and begins a new epoch. Whoever had the link before
 * is cut off; the guest's processes and their output stay. Throws `GuestFailed` when nobody holds the other ends.
 */
export async function attachLink(paths: { in: string; out: string }, signal: AbortSignal): Promise<GuestLink> {
  const output = new Socket({ fd: open(paths.in, O_WRONLY), readable: false, writable: true })
  try {
    const input = new Socket({ fd: open(paths.out, O_RDONLY), readable: true, writable: false })
    return await attachStreams(input, output, signal)
  } catch (error) {
    output.destroy()
    throw error
  }
}

function open(path: string, flags: number): number {
  try {
    return openSync(path, flags | O_NONBLOCK)
  } catch (error) {
    throw new IceboxError('GuestFailed', `the guest does not hold its end of ${path}`, { cause: error })
  }
}

/** The same on any byte stream: `input` carries what the guest says, `output` what it is told. They are destroyed on failure. */
export async function attachStreams(input: Readable, output: Writable, signal: AbortSignal): Promise<GuestLink> {
  // Random, so that nothing a process or a client ever wrote can pass for a frame of this epoch.
  const epoch = randomInt(1, 2 ** 32)
  const attached = Promise.withResolvers<void>()
  const mux = new Mux(input, output, epoch, () => attached.resolve())
  // A half frame of the last host's, or a length it announced, ends within the padding.
  output.write(Buffer.alloc(PADDING))
  const payload = new PayloadWriter().u32(epoch).done()
  output.write(encodeFrame({ kind: KIND.attach, flags: 0, epoch: 0, channel: 0, payload }))
  try {
    const ended = mux.closed.then(() => {
      throw mux.ended
    })
    await within(Promise.race([attached.promise, ended]), signal)
  } catch (error) {
    const failure = IceboxError.from(error)
    mux.destroy(failure)
    throw failure
  }
  return new MuxedGuestLink(mux)
}
