import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'

const PROTO = join(import.meta.dirname, 'proto')
const GENERATED = join(import.meta.dirname, 'generated')
const PLUGIN = join(import.meta.dirname, '../../../../../node_modules/.bin/protoc-gen-es')

async function generate(into: string): Promise<void> {
  const sources = (await readdir(PROTO)).filter((name) => name.endsWith('.proto'))
  await promisify(execFile)(
    'protoc',
    [`--plugin=${PLUGIN}`, '-I', PROTO, `--es_out=${into}`, '--es_opt=target=js+dts', ...sources.sort()],
    { timeout: 60_000 },
  )
}

const filesOf = async (directory: string): Promise<Record<string, string>> => {
  const names = (await readdir(directory)).sort()
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await readFile(join(directory, name), 'utf8')] as const)),
  )
}

test('generated/ is what protoc makes of proto/ (UPDATE_GENERATED=1 writes it)', async (t) => {
  if (process.env.UPDATE_GENERATED) return generate(GENERATED)
  const fresh = await mkdtemp(join(tmpdir(), 'icebox-proto-'))
  t.after(() => rm(fresh, { recursive: true }))
  await generate(fresh)
  const [made, kept] = [await filesOf(fresh), await filesOf(GENERATED)]
  assert.deepEqual(Object.keys(made), ['filesystem_pb.d.ts', 'filesystem_pb.js', 'process_pb.d.ts', 'process_pb.js'])
  assert.deepEqual(
    kept,
    made,
    'out of date: run UPDATE_GENERATED=1 node packages/server/src/e2b/envd/generated.test.ts',
  )
})
