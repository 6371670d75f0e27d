import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { localImage } from './local-image.ts'

let directory = ''
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'icebox-local-'))
  await writeFile(join(directory, 'a.tar'), '')
  await writeFile(join(directory, 'odd:name.tar'), '')
})
after(() => rm(directory, { recursive: true, force: true }))

test('what names files here is told from what a registry has, and its path from its tag', async () => {
  const of = async (text: string) => {
    const found = await localImage(text)
    return found && [found.kind, found.path.slice(directory.length), found.name, found.isDirectory]
  }
  assert.equal(await of('python:3.12'), undefined)
  assert.equal(await of('debian:bookworm+git'), undefined)
  assert.deepEqual(await of(`dir:${directory}`), ['tar', '', undefined, true])
  assert.deepEqual(await of(`tar:${directory}/a.tar`), ['tar', '/a.tar', undefined, false])
  assert.deepEqual(await of(`tar:${directory}/odd:name.tar`), ['tar', '/odd:name.tar', undefined, false])
  assert.deepEqual(await of(`oci:${directory}:1.0`), ['oci', '', '1.0', true])
  assert.deepEqual(await of(`oci:${directory}`), ['oci', '', undefined, true])
  assert.deepEqual(await of(`docker-archive:${directory}/a.tar:app:1`), ['docker-archive', '/a.tar', 'app:1', false])
})

test('what is not there, or is something else, is refused before anything is sent', async () => {
  await assert.rejects(localImage(`dir:${directory}/none`), { code: 'NotFound' })
  await assert.rejects(localImage(`oci:${directory}/none:tag`), { code: 'NotFound' })
  await assert.rejects(localImage(`dir:${directory}/a.tar`), { code: 'InvalidArgument' })
  await assert.rejects(localImage(`tar:${directory}`), { code: 'InvalidArgument' })
})
