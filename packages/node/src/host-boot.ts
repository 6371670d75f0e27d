import { readFile, rename, stat, utimes, writeFile } from 'node:fs/promises'

const BOOT_ID = '/proc/sys/kernel/random/boot_id'

const bootId = async (): Promise<string> => (await readFile(BOOT_ID, 'utf8')).trim()

/** Whether the host was started anew since `rememberBoot`; false when that was never called. */
export async function hasRestarted(file: string): Promise<boolean> {
  const known = await readFile(file, 'utf8').catch(() => undefined)
  return known !== undefined && known.trim() !== (await bootId())
}

/** Notes which boot of the host this is. A loss of power right after it may take the note back, which is then as true as before. */
export async function rememberBoot(file: string): Promise<void> {
  const draft = `${file}.new`
  await writeFile(draft, `${await bootId()}\n`, { flush: true })
  await rename(draft, file)
}

/** When `rememberBoot` or `seen` was last called, ISO 8601; undefined: never. */
export async function lastSeen(file: string): Promise<string | undefined> {
  const found = await stat(file).catch(() => undefined)
  return found?.mtime.toISOString()
}

/** Notes that the server is alive. A failure is as if it were not. */
export async function seen(file: string): Promise<void> {
  const now = new Date()
  await utimes(file, now, now).catch(() => undefined)
}
