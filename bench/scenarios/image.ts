import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { cacheDirectory, pullToExt4 } from '@icebox/node'
import { command } from '../../packages/node/src/setup/command.ts'
import { describeTree, differences } from '../image/compare.ts'
import { withDisk, withMounted } from '../image/disk.ts'
import { TAG, writeLayout } from '../image/layout.ts'
import { atMost, interleave, result, timed } from '../measure.ts'
import type { Scenario } from '../scenario.ts'

const DEADLINE_MS = 600_000
/** Room for the unpacked image, its ext4 file and the file system's own. */
const DISK_BYTES = 4 * 2 ** 30
const SIZE_BYTES = 2 ** 30
const MIB = 2 ** 20

export const image: Scenario = {
  name: 'image',
  summary: 'snapshot pull: an OCI layout becomes an ext4 file',
  async run(lab, effort, signal) {
    const at = (name: string) => join(lab.directory, name)
    const program = (name: string, args: string[]) => command(name, args, { deadlineMs: DEADLINE_MS }, signal)
    const layout = at('layout')
    await mkdir(layout)
    const stored = await writeLayout(layout, effort.image, signal)
    const disk = at('disk')
    /** Each on a new disk; the ext4 file of the last run is kept for comparison. */
    const made = (name: string, work: () => Promise<unknown>) => async () =>
      withDisk(at('disk.img'), disk, DISK_BYTES, async () => {
        await mkdir(join(disk, 'work'))
        const milliseconds = await timed(work)
        await rm(at(name), { force: true })
        await program('cp', ['--sparse=always', join(disk, 'image.ext4'), at(name)])
        return [milliseconds]
      })
    const { floor, ours } = await interleave(
      effort.rounds.image,
      {
        floor: made('floor.ext4', async () => {
          await program('umoci', ['unpack', '--image', `${layout}:${TAG}`, join(disk, 'bundle')])
          const tree = join(disk, 'bundle', 'rootfs')
          await program('mke2fs', ['-q', '-t', 'ext4', '-d', tree, join(disk, 'image.ext4'), `${SIZE_BYTES / 1024}k`])
        }),
        ours: made('ours.ext4', async () => {
          const places = { cacheDirectory: cacheDirectory(), workDirectory: join(disk, 'work') }
          const output = join(disk, 'image.ext4')
          await pullToExt4(`oci:${layout}:${TAG}`, output, { ...places, sizeBytes: SIZE_BYTES }, () => {}, signal)
        }),
      },
      signal,
    )
    const read = (name: string) => withMounted(at(name), at('mounted'), 'ro', () => describeTree(at('mounted')))
    const content = await read('ours.ext4')
    const wrong = differences(content, await read('floor.ext4'))
    if (wrong.length > 0)
      throw new Error(`the two ext4 files differ in ${wrong.length} places:\n${wrong.slice(0, 20).join('\n')}`)
    for (const name of ['layout', 'ours.ext4', 'floor.ext4']) await rm(at(name), { recursive: true })
    return [
      result('image', 'ms', { ours, floor }, atMost(0.7), [
        `layout of ${Math.round(stored / MIB)} MiB, ${content.size} files and directories; content equal`,
        'floor: umoci unpack and mke2fs -d; ours also makes the file durable',
      ]),
    ]
  },
}
