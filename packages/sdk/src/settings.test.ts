import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { connectionSettings, DEFAULT_URL } from './settings.ts'

test('server and key: what is given wins over the environment, that over the data directory, that over the default', (t) => {
  const data = mkdtempSync(join(tmpdir(), 'icebox-settings-'))
  t.after(() => rmSync(data, { recursive: true }))
  const none = join(data, 'none')
  assert.deepEqual(connectionSettings({}, { ICEBOX_DATA: none }), { url: DEFAULT_URL, apiKey: undefined })
  writeFileSync(join(data, 'key'), 'e2b_file\n')
  writeFileSync(join(data, 'server.json'), JSON.stringify({ url: 'http://127.0.0.1:1', pid: 1 }))
  const fromFile = { url: 'http://127.0.0.1:1', apiKey: 'e2b_file' }
  assert.deepEqual(connectionSettings({}, { ICEBOX_DATA: data }), fromFile)
  assert.deepEqual(connectionSettings({ dataDirectory: data }, {}), fromFile)
  const environment = { ICEBOX_DATA: data, ICEBOX_URL: 'http://127.0.0.1:2', ICEBOX_API_KEY: 'e2b_env' }
  assert.deepEqual(connectionSettings({}, environment), { url: 'http://127.0.0.1:2', apiKey: 'e2b_env' })
  // A data directory named by hand says which server is meant.
  assert.equal(connectionSettings({ dataDirectory: data }, environment).url, 'http://127.0.0.1:1')
  assert.deepEqual(connectionSettings({ url: 'http://127.0.0.1:3', apiKey: 'k', dataDirectory: data }, environment), {
    url: 'http://127.0.0.1:3',
    apiKey: 'k',
  })
  writeFileSync(join(data, 'server.json'), 'not json')
  assert.equal(connectionSettings({ dataDirectory: data }, {}).url, DEFAULT_URL)
})
