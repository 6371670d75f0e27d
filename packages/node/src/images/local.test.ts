import assert from 'node:assert/strict'
import { mkdirSync, readlinkSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type ErrorCode, isError } from '@icebox/model'
import { freshDirectories, mounted, quiet, sh, soon, tarOf, temporaryDirectory, writeLayout } from './fixture.ts'
import type { SourceSettings } from './source-policy.ts'
import { openImageStore } from './store.ts'

const directory = temporaryDirectory()
const fresh = freshDirectories(directory)
const TENANT = { project: 'tenant', installation: false }
/** A key of the operator's project that is not the operator's. */
const NEIGHBOUR = { project: 'default', installation: false }
const OPERATOR = { project: 'default', installation: true }

const open = (sources: SourceSettings) =>
  openImageStore({ directory: fresh('store'), cacheDirectory: join(directory, 'cache'), sources })
type Store = ReturnType<typeof open>

const refused = (store: Store, by: typeof TENANT, reference: string, ...codes: ErrorCode[]) =>
  assert.rejects(store.pullAs(by, reference, quiet, soon()), (error) => isError(error, ...codes), reference)

/** A directory with one of each kind that an image can be made of. */
async function sources(path: string) {
  const root = join(path, 'root')
  mkdirSync(root)
  writeFileSync(join(root, 'file'), 'x')
  writeFileSync(join(path, 'root.tar'), await tarOf([{ name: 'file', content: 'y' }]))
  const layout = join(path, 'layout')
  writeLayout(layout, [await tarOf([{ name: 'file', content: 'z' }])])
  sh('skopeo', 'copy', '-q', `oci:${layout}:latest`, `docker-archive:${join(path, 'saved.tar')}:made:1`)
  return [`dir:${root}`, `tar:${path}/root.tar`, `oci:${layout}`, `docker-archive:${path}/saved.tar`]
}

test('files of the machine are for the installation, and for others below what is listed', async () => {
  const [mine, listed] = [fresh('mine'), fresh('listed')]
  const store = open({ directories: [listed] })
  for (const reference of await sources(mine)) {
    await refused(store, TENANT, reference, 'Forbidden')
    await refused(store, NEIGHBOUR, reference, 'Forbidden')
    await store.pullAs(OPERATOR, reference, quiet, soon())
  }
  for (const reference of await sources(listed)) await store.pullAs(TENANT, reference, quiet, soon())
  // Whether there is anything is not told either.
  await refused(store, TENANT, 'tar:/does/not/exist', 'Forbidden')
  await refused(store, TENANT, `dir:${listed}-beside`, 'Forbidden')
  await refused(store, TENANT, `dir:${directory}`, 'Forbidden')
})

test('links out of what is listed are not followed', async () => {
  const [mine, listed] = [fresh('mine'), fresh('listed')]
  const [root] = await sources(mine)
  const store = open({ directories: [listed] })
  symlinkSync(root?.slice('dir:'.length) ?? '', join(listed, 'root'))
  symlinkSync(join(mine, 'root.tar'), join(listed, 'root.tar'))
  symlinkSync(mine, join(listed, 'way'))
  await refused(store, TENANT, `dir:${listed}/root`, 'Forbidden')
  await refused(store, TENANT, `tar:${listed}/root.tar`, 'Forbidden')
  await refused(store, TENANT, `tar:${listed}/way/root.tar`, 'Forbidden')
  await refused(store, TENANT, `oci:${listed}/way/layout`, 'Forbidden')
  // Within a layout every part may be a link.
  for (const part of ['index.json', 'blobs', 'blobs/sha256']) {
    const layout = join(listed, `layout-${part.replace('/', '-')}`)
    writeLayout(layout, [await tarOf([{ name: 'file' }])])
    const away = join(fresh('away'), 'part')
    renameSync(join(layout, part), away)
    symlinkSync(away, join(layout, part))
    await refused(store, TENANT, `oci:${layout}`, 'ImageInvalid')
  }
})

test('a link in a directory becomes a link in the image', async () => {
  const root = fresh('root')
  symlinkSync('/etc/passwd', join(root, 'file'))
  symlinkSync('/etc', join(root, 'directory'))
  symlinkSync('../../../../etc', join(root, 'upwards'))
  const store = open({ directories: [root] })
  const { digest } = await store.pullAs(TENANT, `dir:${root}`, quiet, soon())
  mounted('erofs', store.path(digest, 'erofs'), (path) => {
    assert.equal(readlinkSync(join(path, 'file')), '/etc/passwd')
    assert.equal(readlinkSync(join(path, 'directory')), '/etc')
    assert.equal(readlinkSync(join(path, 'upwards')), '../../../../etc')
  })
})

test('nothing is made of what the server keeps to itself, for nobody', async () => {
  const parent = fresh('parent')
  const data = join(parent, 'data')
  mkdirSync(join(data, 'tmp'), { recursive: true })
  writeFileSync(join(data, 'key'), 'secret')
  writeFileSync(join(data, 'tmp', 'a.tar'), await tarOf([{ name: 'file' }]))
  const link = join(fresh('link'), 'to')
  symlinkSync(data, link)
  const tls = join(fresh('tls'), 'key.pem')
  writeFileSync(tls, 'secret')
  // Listing it does not open it.
  const store = open({ directories: [data, parent, '/'], secret: [data, tls] })
  for (const by of [TENANT, OPERATOR]) {
    for (const path of [data, join(data, 'tmp'), parent, '/', link, join(parent, 'x/../data')])
      await refused(store, by, `dir:${path}`, 'Forbidden')
    await refused(store, by, `tar:${data}/key`, 'Forbidden')
    await refused(store, by, `tar:${data}/tmp/a.tar`, 'Forbidden')
    await refused(store, by, `docker-archive:${link}/tmp/a.tar`, 'Forbidden')
    await refused(store, by, `tar:${tls}`, 'Forbidden')
    await refused(store, by, `dir:${join(tls, '..')}`, 'Forbidden')
  }
  await store.pullAs(TENANT, `dir:${fresh('other')}`, quiet, soon())
})

test('a bootstrap, whose scripts run as root on the host, is for the installation alone', async () => {
  const store = open({ directories: ['/'] })
  for (const reference of ['debian:bookworm', 'debian:sid+git', 'debian:bookworm@user']) {
    await refused(store, TENANT, reference, 'Forbidden')
    await refused(store, NEIGHBOUR, reference, 'Forbidden')
  }
})

test('what a client has sent is an image as it is from the same file', async () => {
  const path = fresh('sent')
  const [, tar, layout, archive] = await sources(path)
  const store = open({})
  sh('tar', '--create', '--file', join(path, 'layout.tar'), '-C', join(path, 'layout'), '.')
  sh('gzip', '--keep', join(path, 'layout.tar'))
  const same: [string, { kind: 'tar' | 'oci' | 'docker-archive'; file: string; name?: string }][] = [
    [tar ?? '', { kind: 'tar', file: join(path, 'root.tar') }],
    [layout ?? '', { kind: 'oci', file: join(path, 'layout.tar') }],
    [layout ?? '', { kind: 'oci', file: join(path, 'layout.tar.gz'), name: 'latest' }],
    [archive ?? '', { kind: 'docker-archive', file: join(path, 'saved.tar'), name: 'made:1' }],
  ]
  for (const [reference, upload] of same) {
    const sent = await store.importUpload(TENANT, { ...upload, reference: 'upload:x' }, quiet, soon())
    assert.equal(sent.reference, 'upload:x')
    assert.equal((await store.pullAs(OPERATOR, reference, quiet, soon())).digest, sent.digest)
  }
  const none = { kind: 'oci' as const, file: join(path, 'layout.tar'), name: 'none', reference: 'upload:x' }
  await assert.rejects(store.importUpload(TENANT, none, quiet, soon()), (error) => isError(error, 'NotFound'))
  const wrong = { kind: 'docker-archive' as const, file: join(path, 'root.tar'), reference: 'upload:x' }
  const short = join(path, 'short.tar')
  sh('sh', '-c', `head -c 1500 ${join(path, 'root.tar')} > ${short}`)
  await assert.rejects(store.pullAs(OPERATOR, `tar:${short}`, quiet, soon()), (error) => {
    assert.ok(error instanceof Error)
    return !error.message.includes('/proc/')
  })
  await assert.rejects(store.importUpload(TENANT, wrong, quiet, soon()), (error) => isError(error, 'ImageInvalid'))
})
