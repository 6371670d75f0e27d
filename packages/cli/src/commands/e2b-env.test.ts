import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'

const ICEBOX = join(import.meta.dirname, '../../../../icebox')
const KEY = `e2b_${'0'.repeat(40)}`
const { ICEBOX_URL: _, ICEBOX_API_KEY: __, ...environment } = process.env

async function dataDirectory(t: TestContext, url: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-e2b-env-'))
  t.after(() => rm(directory, { recursive: true }))
  await writeFile(join(directory, 'key'), `${KEY}\n`)
  await writeFile(join(directory, 'server.json'), JSON.stringify({ url }))
  return directory
}

test('e2b env gives a shell the three variables', async (t) => {
  const directory = await dataDirectory(t, "http://127.0.0.1:7071/it's/")
  const script = 'eval "$("$0" e2b env --data "$1")" && env | grep ^E2B_ | sort'
  const text = execFileSync('sh', ['-c', script, ICEBOX, directory], { encoding: 'utf8', env: environment })
  const url = "http://127.0.0.1:7071/it's"
  assert.equal(text, `E2B_API_KEY=${KEY}\nE2B_API_URL=${url}\nE2B_SANDBOX_URL=${url}\n`)
  const json = execFileSync(ICEBOX, ['e2b', 'env', '--json', '--data', directory, '--url', 'https://box.example'], {
    encoding: 'utf8',
    env: environment,
  })
  assert.deepEqual(JSON.parse(json), {
    E2B_API_URL: 'https://box.example',
    E2B_SANDBOX_URL: 'https://box.example',
    E2B_API_KEY: KEY,
  })
})

test('e2b env without a key prints nothing that could be taken for one', async (t) => {
  const directory = await dataDirectory(t, 'http://127.0.0.1:7071')
  await rm(join(directory, 'key'))
  const { status, stdout, stderr } = spawnSync(ICEBOX, ['e2b', 'env', '--data', directory], {
    encoding: 'utf8',
    env: environment,
  })
  assert.deepEqual([status, stdout], [1, ''])
  assert.match(stderr, /no API key/)
})
