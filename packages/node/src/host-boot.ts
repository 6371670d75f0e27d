import { readFile, rename, writeFile } from 'node:fs/promises'

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
