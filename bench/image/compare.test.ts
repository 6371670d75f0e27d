import assert from 'node:assert/strict'
import { chmod, link, lutimes, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setXattr } from '@icebox/snapshot'
import { describeTree, differences } from './compare.ts'

const CHANGES: Record<string, (tree: string) => Promise<void> | void> = {
  'another byte': async (tree) => {
    await writeFile(join(tree, 'file'), 'contenT')
    await lutimes(join(tree, 'file'), 1000, 1000)
  },
  'another mode': (tree) => chmod(join(tree, 'directory'), 0o700),
  'another time': (tree) => lutimes(join(tree, 'file'), 1001, 1001),
  'another target': async (tree) => {
    await rm(join(tree, 'link'))
    await symlink('elsewhere', join(tree, 'link'))
    await lutimes(join(tree, 'link'), 1000, 1000)
  },
  'another attribute': (tree) => setXattr(Buffer.from(join(tree, 'directory')), 'user.x', Buffer.from('1')),
  'one name less of a file': (tree) => rm(join(tree, 'second')),
  'one file more': (tree) => writeFile(join(tree, 'more'), ''),
}

for (const [what, change] of Object.entries(CHANGES))
  test(`${what} makes two trees differ`, async (t) => {
    const scratch = await mkdtemp(join(tmpdir(), 'compare-'))
    t.after(() => rm(scratch, { recursive: true }))
    const [one, other] = [join(scratch, 'one'), join(scratch, 'other')]
    for (const tree of [one, other]) {
      await mkdir(join(tree, 'directory'), { recursive: true })
      await writeFile(join(tree, 'file'), 'content')
      await link(join(tree, 'file'), join(tree, 'second'))
      await symlink('file', join(tree, 'link'))
      for (const name of ['file', 'link']) await lutimes(join(tree, name), 1000, 1000)
    }
    const expected = await describeTree(one)
    assert.deepEqual(differences(await describeTree(other), expected), [])
    await change(other)
    assert.notDeepEqual(differences(await describeTree(other), expected), [])
  })
