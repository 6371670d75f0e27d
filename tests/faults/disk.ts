import { execFile } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { promisify } from 'node:util'

const run = promisify(execFile)
const DISK_BYTES = 67_108_864

/** A file system on a disk of its own. */
export interface Disk {
  /** Where it is mounted. */
  path: string
  /** What a loss of power right now would leave, mounted beside it. Things written but not synced are not in it. */
  afterPowerLoss(): Promise<string>
}

/** Makes an ext4 file system in a file. Needs root and a loop device. The end of the test unmounts it. */
export async function makeDisk(t: TestContext): Promise<Disk> {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-disk-'))
  const mounted: string[] = []
  t.after(async () => {
    // Lazily, since a test that failed may have left files open.
    for (const path of mounted.reverse()) await run('umount', ['--lazy', path])
    await rm(directory, { recursive: true, force: true })
  })
  const mount = async (image: string): Promise<string> => {
    const path = join(directory, `mount-${mounted.length}`)
    await mkdir(path)
    // The kernel syncs by itself only after five minutes, so that a missing fsync is a missing file.
    await run('mount', ['-o', 'loop,commit=300', image, path])
    mounted.push(path)
    return path
  }
  const image = join(directory, 'disk.img')
  await writeFile(image, '')
  await truncate(image, DISK_BYTES)
  await run('mkfs.ext4', ['-q', '-F', image])
  return {
    path: await mount(image),
    async afterPowerLoss() {
      const copy = join(directory, `after-${mounted.length}.img`)
      await copyFile(image, copy)
      return mount(copy)
    },
  }
}
