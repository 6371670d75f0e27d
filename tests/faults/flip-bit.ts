import { chmod, open } from 'node:fs/promises'

/** Changes one bit in the middle of a file that may not be written. */
export async function flipBit(file: string): Promise<void> {
  await chmod(file, 0o600)
  const handle = await open(file, 'r+')
  try {
    const { size } = await handle.stat()
    const byte = Buffer.alloc(1)
    await handle.read(byte, 0, 1, Math.floor(size / 2))
    byte[0] = (byte[0] ?? 0) ^ 1
    await handle.write(byte, 0, 1, Math.floor(size / 2))
  } finally {
    await handle.close()
  }
}
