import { open } from 'node:fs/promises'

const READ_BYTES = 1_048_576
const SHOWN = 2000

/** The end of a file, as text; empty when there is no such file. */
async function end(file: string): Promise<string> {
  const handle = await open(file).catch(() => undefined)
  if (!handle) return ''
  try {
    const { size } = await handle.stat()
    const length = Math.min(size, READ_BYTES)
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, size - length)
    return buffer.subarray(0, bytesRead).toString()
  } finally {
    await handle.close()
  }
}

/** The last error that runsc wrote into the log, one JSON line each. */
export async function lastError(log: string): Promise<string> {
  const messages = [...(await end(log)).matchAll(/^\{.*"msg":("(?:[^"\\]|\\.)*")/gm)]
  const last = messages.at(-1)?.[1]
  return last === undefined ? 'it said nothing' : String(JSON.parse(last))
}

/** Why a sentry ended, as far as its log tells: where a panic begins, for what follows is the state of a thousand threads. */
export async function lastWords(log: string): Promise<string> {
  const text = await end(log)
  const panic = /^(?:panic|fatal error|runtime): /m.exec(text)
  return (panic ? text.slice(panic.index, panic.index + SHOWN) : text.slice(-SHOWN)).trim()
}
