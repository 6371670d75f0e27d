import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DEFAULT_PROJECT, type TemplateSpec } from '@icebox/model'
import { openTestStore } from '../testing.ts'
import { usableTemplate } from './resolve.ts'

const spec: TemplateSpec = {
  image: 'debian:bookworm',
  size: { cpu: 1, memoryMiB: 128, diskMiB: 1024 },
  env: {},
  hidden: false,
}

test('who publishes a template of a name that is known does not take it over', async (t) => {
  const { cache, recordsOf } = await openTestStore(t)
  const publish = async (project: string, name: string) => {
    const status = { state: 'ready' as const, lastTransitionAt: new Date().toISOString() }
    const made = await recordsOf(project).create('Template', name, { spec: { ...spec, public: true }, status })
    // So that no two have the same age.
    while (Date.now() <= Date.parse(made.metadata.createdAt)) await new Promise((resolve) => setImmediate(resolve))
  }
  await publish('zebra', 'tools')
  await publish('aardvark', 'tools')
  await publish('aardvark', 'base')
  await publish(DEFAULT_PROJECT, 'base')
  const projectOf = async (asking: string, name: string) =>
    (
      await usableTemplate(
        { cache, records: recordsOf(asking), project: (other) => ({ records: recordsOf(other) }) },
        name,
      )
    ).metadata.namespace
  assert.equal(await projectOf('mine', 'base'), DEFAULT_PROJECT)
  assert.equal(await projectOf('mine', 'tools'), 'zebra')
  assert.equal(await projectOf('aardvark', 'base'), 'aardvark')
})
