import assert from 'node:assert/strict'
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isError } from '@icebox/model'
import { readDirectory } from './directory.ts'
import type { Entry } from './entry.ts'
import { freshDirectories, sh, temporaryDirectory } from './fixture.ts'

const fresh = freshDirectories(temporaryDirectory())

/** Reads a directory that somebody changes as soon as an entry was seen. Gives what was read. */
function read(root: string, exchange: (entry: Entry) => void): string {
  let content = ''
  readDirectory(root, '', {
    add: (entry) => exchange(entry),
    write: (chunk) => {
      content += Buffer.from(chunk).toString()
    },
    end() {},
  })
  return content
}

test('what takes the name of a file or directory after it was looked at is not read', () => {
  const away = fresh('away')
  mkdirSync(join(away, 'directory'))
  writeFileSync(join(away, 'directory', 'file'), 'secret')
  const takeovers: [kind: string, take: (path: string, name: string) => void][] = [
    ['a link', (path, name) => symlinkSync(join(away, 'directory', name === 'file' ? 'file' : '.'), path)],
    [
      'another',
      (path, name) => (name === 'file' ? writeFileSync(path, 'secret') : sh('cp', '-r', `${away}/directory`, path)),
    ],
    ['a FIFO', (path) => sh('mkfifo', path)],
    ['nothing', () => {}],
  ]
  for (const [kind, take] of takeovers)
    for (const name of ['file', 'directory']) {
      const root = fresh('root')
      mkdirSync(join(root, 'directory'))
      writeFileSync(join(root, 'directory', 'mine'), '')
      writeFileSync(join(root, 'file'), '')
      const exchange = ({ path }: Entry) => {
        if (path !== name) return
        renameSync(join(root, name), join(fresh('old'), name))
        take(join(root, name), name)
      }
      let content = ''
      const reading = () => {
        content = read(root, exchange)
      }
      assert.throws(reading, (error) => isError(error, 'Conflict'), `${kind} for a ${name}`)
      assert.equal(content, '')
    }
})

test('what happens to the way to a directory that is being read does not matter', () => {
  const away = fresh('away')
  writeFileSync(join(away, 'file'), 'secret')
  const root = fresh('root')
  const inner = join(root, 'a', 'b')
  mkdirSync(inner, { recursive: true })
  writeFileSync(join(inner, 'file'), 'mine')
  writeFileSync(join(inner, 'before'), '')
  const content = read(root, ({ path }) => {
    if (path !== 'a/b/before') return
    renameSync(join(root, 'a'), join(fresh('old'), 'a'))
    mkdirSync(join(root, 'a'))
    symlinkSync(away, join(root, 'a', 'b'))
  })
  assert.equal(content, 'mine')
  rmSync(root, { recursive: true })
})
