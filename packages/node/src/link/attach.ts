import { randomInt } from 'node:crypto'
import { closeSync, constants, openSync, readSync } from 'node:fs'
import { Socket } from 'node:net'
import { IceboxError } from '@icebox/model'
import { enlargePipe } from '@icebox/snapshot'
import { encodeFrame, KIND, PADDING } from './frame.ts'
import { MuxedGuestLink } from './guest-link.ts'
import type { GuestLink } from './link.ts'
import { aborted, Mux, within } from './mux.ts'
import { PayloadWriter } from './payload.ts'

const { O_NONBLOCK, O_RDONLY, O_WRONLY } = constants
/** Somebody who writes on and on while we read is there. */
const MAX_LEFT_READS = 64
/** Bytes the guest can say before it has to wait for this process. The system's default is two frames, less their headers. */
const FIFO_SIZE = 512 * 1024
/**
 * Where everything that guests say arrives: what one read finds is dealt with before the next. A buffer for each read would be
 * memory outside of the heap, and so much of that each second that the collector would hardly do anything else.
 */
const ARRIVING = Buffer.allocUnsafeSlow(FIFO_SIZE)

/**
 * Takes the link to a guest by the two FIFOs in its machine's run directory, and begins a new epoch. Whoever had the link before
 * is cut off; the guest's processes and their output stay. Throws `GuestFailed` when nobody holds the other ends.
 */
export async function attachLink(paths: { in: string; out: string }, signal: AbortSignal): Promise<GuestLink> {
  // Beginning an epoch ends the one before: not for a caller that has given up.
  if (signal.aborted) throw aborted(signal)
  const output = new Socket({ fd: open(paths.in, O_WRONLY), readable: false, writable: true })
  try {
    const fd = open(paths.out, O_RDONLY)
    if (!hasWriter(fd)) {
      closeSync(fd)
      throw gone(paths.out)
    }
    return new MuxedGuestLink(await greeted(fd, output, signal))
  } catch (error) {
    output.destroy()
    throw error
  }
}

const gone = (path: string, cause?: unknown) =>
  new IceboxError('GuestFailed', `the guest does not hold its end of ${path}`, { cause })

function open(path: string, flags: number): number {
  try {
    return openSync(path, flags | O_NONBLOCK)
  } catch (error) {
    throw gone(path, error)
  }
}

/**
 * Whether anybody can still write to the FIFO. A reader that came after the last writer is never woken by its end, so it has to
 * be asked for. What was left in it goes: it is of an epoch that is over.
 */
function hasWriter(fd: number): boolean {
  const left = Buffer.allocUnsafe(64 * 1024)
  try {
    for (let reads = 0; reads < MAX_LEFT_READS; reads++) if (readSync(fd, left) === 0) return false
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw IceboxError.from(error)
  }
  return true
}

/** Begins an epoch, and waits for the guest to do the same. The descriptor, which the guest is heard on, is closed on failure. */
async function greeted(fd: number, output: Socket, signal: AbortSignal): Promise<Mux> {
  enlargePipe(fd, FIFO_SIZE)
  const callback = (length: number, buffer: Uint8Array) => mux.receive(buffer.subarray(0, length))
  const input = new Socket({ fd, readable: true, writable: false, onread: { buffer: ARRIVING, callback } })
  // Random, so that nothing a process or a client ever wrote can pass for a frame of this epoch.
  const epoch = randomInt(1, 2 ** 32)
  const attached = Promise.withResolvers<void>()
  const mux = new Mux(input, output, epoch, () => attached.resolve())
  // Else nobody hears of its end.
  input.resume()
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
  return mux
}
