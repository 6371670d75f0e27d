import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { NodeImage } from '@icebox/model'
import { Operations } from '../operations.ts'
import { openTestStore } from '../testing.ts'
import { imageKey, recordImage, shareImage } from './ensure.ts'

const IMAGE: NodeImage = {
  reference: 'docker.io/library/python:3.12',
  digest: `sha256:${'0'.repeat(64)}`,
  config: { env: {}, workingDir: '/', user: '', entrypoint: [], cmd: [] },
  sizeBytes: 1,
}

async function projects(t: TestContext) {
  const { recordsOf } = await openTestStore(t)
  const operations = new Operations()
  return (name: string) => ({ operations, records: recordsOf(name) })
}

test('many who need an image at once for the first time all get it', async (t) => {
  const project = await projects(t)
  const [mine, theirs] = [project('mine'), project('theirs')]
  const image = await recordImage(theirs, IMAGE)
  const shared = await Promise.all(Array.from({ length: 20 }, () => shareImage(mine, image)))
  assert.equal(new Set(shared.map(({ metadata }) => metadata.uid)).size, 1)
  const pulled = await Promise.all(Array.from({ length: 20 }, () => recordImage(project('others'), IMAGE)))
  assert.equal(new Set(pulled.map(({ metadata }) => metadata.uid)).size, 1)
})

test('an image keeps the reference that its project asked for it by', async (t) => {
  const project = await projects(t)
  const [mine, theirs] = [project('mine'), project('theirs')]
  await recordImage(mine, IMAGE)
  const other = await recordImage(theirs, { ...IMAGE, reference: 'dir:/home/theirs' })
  assert.equal((await shareImage(mine, other)).spec.reference, IMAGE.reference)
  const again = await recordImage(mine, { ...IMAGE, reference: 'docker.io/library/python:3' })
  assert.equal(again.spec.reference, 'docker.io/library/python:3')
})

test('who needs an image that is being deleted gets it after that', async (t) => {
  const project = await projects(t)
  const [mine, theirs] = [project('mine'), project('theirs')]
  const image = await recordImage(theirs, IMAGE)
  const { name } = (await shareImage(mine, image)).metadata
  const looked = Promise.withResolvers<void>()
  const deletion = mine.operations.exclusive(imageKey(mine, name), 'delete', async () => {
    await looked.promise
    await mine.records.remove('Image', name)
    return { resource: image, settled: Promise.resolve(image) }
  })
  const shared = shareImage(mine, image)
  looked.resolve()
  await Promise.all([deletion, shared])
  assert.equal((await mine.records.get('Image', name)).status.state, 'ready')
})
