import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { testResourceStore } from '../conformance.ts'
import { openSqliteStore } from '../index.ts'

testResourceStore('sqlite', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-store-'))
  const store = await openSqliteStore(join(directory, 'icebox.db'))
  t.after(async () => {
    await store.close()
    await rm(directory, { recursive: true })
  })
  return { store, namespace: 'project-a', other: 'project-b' }
})
