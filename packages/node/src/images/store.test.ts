import assert from 'node:assert/strict'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { isError, type NodeImage, type Progress } from '@icebox/model'
import {
  filesBelow,
  freshDirectories,
  listing,
  MIB,
  mounted,
  quiet,
  sh,
  shell,
  soon,
  tarOf,
  temporaryDirectory,
  writeLayout,
} from './fixture.ts'
import { pullToExt4 } from './pull-ext4.ts'
import { openImageStore } from './store.ts'

const directory = temporaryDirectory()
const cacheDirectory = join(directory, 'cache')
const fresh = freshDirectories(directory)
const open = (path = fresh('store')) => ({ path, store: openImageStore({ directory: path, cacheDirectory }) })

async function layout(content = 'content'): Promise<{ path: string; digest: string }> {
  const path = fresh('layout')
  return { path, digest: writeLayout(path, [await tarOf([{ name: 'file', content }])]) }
}

/** Once the work has said so far that it is under way. */
function watched(): { progress: Progress; phases: string[]; started: Promise<void> } {
  const { promise, resolve } = Promise.withResolvers<void>()
  const phases: string[] = []
  const progress: Progress = ({ phase }) => {
    phases.push(phase)
    resolve()
  }
  return { progress, phases, started: promise }
}

test('equal pulls are one pull, and pulls of one digest make it once', async () => {
  const { path, store } = open()
  const { path: from, digest } = await layout()
  const twin = fresh('twin')
  sh('cp', '-r', `${from}/.`, twin)
  const pulls = [watched(), watched(), watched()]
  const references = [`oci:${from}`, `oci:${from}`, `oci:${twin}`]
  const pull = (i: number) => store.pull(references[i] ?? '', pulls[i]?.progress ?? quiet, soon())
  const equal = [pull(0), pull(1)]
  // The twin comes when the image is being made: otherwise it might be the one that makes it.
  await pulls[0]?.started
  const images = await Promise.all([...equal, pull(2)])
  assert.deepEqual(
    images.map((image) => image.digest),
    [digest, digest, digest],
  )
  assert.deepEqual(pulls[0]?.phases, pulls[1]?.phases)
  assert.equal(pulls.filter(({ phases }) => phases.includes('erofs')).length, 2, 'the twin waited and found it')
  assert.deepEqual(readdirSync(path).sort(), [digest.slice(7), 'tmp'])
  assert.equal((await store.list(soon())).length, 1)
})

test('a pull goes on as long as somebody waits for it', async () => {
  const { path, store } = open()
  const { path: from, digest } = await layout()
  const first = new AbortController()
  const pulling = store.pull(`oci:${from}`, quiet, first.signal)
  const joined = store.pull(`oci:${from}`, quiet, soon())
  first.abort()
  await assert.rejects(pulling, (error) => isError(error, 'DeadlineExceeded'))
  assert.equal((await joined).digest, digest)
  await store.remove(digest, soon())
  const alone = new AbortController()
  const given = watched()
  const abandoned = store.pull(`oci:${from}`, given.progress, alone.signal)
  await given.started
  alone.abort()
  await assert.rejects(abandoned, (error) => isError(error, 'DeadlineExceeded'))
  assert.deepEqual(filesBelow(path), [])
  assert.equal((await store.pull(`oci:${from}`, quiet, soon())).digest, digest)
})

test('a reference means what it was pulled as last', async () => {
  const { store } = open()
  const one = await layout('one')
  const two = await layout('two')
  const place = fresh('moving')
  const become = (path: string) => {
    rmSync(place, { recursive: true })
    sh('cp', '-r', path, place)
  }
  become(one.path)
  assert.equal(await store.resolve(`oci:${place}`), undefined)
  await store.pull(`oci:${place}`, quiet, soon())
  assert.equal((await store.resolve(`oci:${place}`))?.digest, one.digest)
  become(two.path)
  assert.equal((await store.resolve(`oci:${place}`))?.digest, one.digest)
  await store.pull(`oci:${place}`, quiet, soon())
  assert.equal((await store.resolve(`oci:${place}`))?.digest, two.digest)
  become(one.path)
  await store.pull(`oci:${place}`, quiet, soon())
  assert.equal((await store.resolve(`oci:${place}`))?.digest, one.digest)
  assert.equal((await store.resolve(one.digest))?.digest, one.digest)
  assert.equal((await store.resolve(two.digest.slice(7)))?.digest, two.digest)
  assert.equal(await store.resolve(`sha256:${'0'.repeat(64)}`), undefined)
  await assert.rejects(store.resolve('Not A Reference'), (error) => isError(error, 'InvalidArgument'))
  assert.equal((await store.list(soon())).length, 2)
  await store.remove(one.digest, soon())
  await store.remove(one.digest, soon())
  assert.equal((await store.resolve(`oci:${place}`))?.digest, two.digest)
})

test('every form of the same tree is the same image', async () => {
  const { store } = open()
  const tree = fresh('tree')
  shell(
    'mkdir a; echo hello > a/file; ln a/file a/again; ln -s file a/link; chmod 4755 a/file; chown 1000:1000 a/link -h; touch -d @1000000000 -h a/link a/file a .',
    tree,
  )
  const tar = join(fresh('tars'), 'tree.tar')
  sh('tar', '--format=pax', '--sort=name', '-C', tree, '-cf', tar, '.')
  const bytes = readFileSync(tar)
  writeFileSync(`${tar}.gz`, gzipSync(bytes))
  writeFileSync(`${tar}.zst`, zstdCompressSync(bytes))
  sh('xz', '-k', tar)
  const digests = new Set<string>()
  for (const reference of [`dir:${tree}`, `tar:${tar}`, `tar:${tar}.gz`, `tar:${tar}.zst`, `tar:${tar}.xz`])
    digests.add((await store.pull(reference, quiet, soon())).digest)
  assert.equal(digests.size, 1)
  shell('chmod 0755 a/file', tree)
  assert.ok(!digests.has((await store.pull(`dir:${tree}`, quiet, soon())).digest))
})

test('a tar that has not changed is not unpacked again', async () => {
  const { store } = open()
  const tar = join(fresh('tars'), 'tree.tar')
  writeFileSync(tar, await tarOf([{ name: 'a', content: '1' }]))
  const first = await store.pull(`tar:${tar}`, quiet, soon())
  const again = watched()
  assert.deepEqual(await store.pull(`tar:${tar}`, again.progress, soon()), first)
  assert.deepEqual(again.phases, ['resolve'])
  writeFileSync(tar, await tarOf([{ name: 'a', content: '22' }]))
  assert.notEqual((await store.pull(`tar:${tar}`, quiet, soon())).digest, first.digest)
})

test('docker archives: by name, compressed, with layers that are links', async () => {
  const { store } = open()
  const { path } = await layout()
  const place = fresh('save')
  const archive = join(place, 'save.tar')
  sh('skopeo', 'copy', '-q', `oci:${path}:latest`, `docker-archive:${archive}:team/app:1`)
  const image = await store.pull(`docker-archive:${archive}:team/app:1`, quiet, soon())
  const unpacked = fresh('unpacked')
  sh('tar', '-C', unpacked, '-xf', archive)
  const [manifest] = JSON.parse(readFileSync(join(unpacked, 'manifest.json'), 'utf8'))
  assert.equal(image.digest, `sha256:${manifest.Config.replace('.json', '')}`)
  await assert.rejects(store.pull(`docker-archive:${archive}:team/app:2`, quiet, soon()), (error) =>
    isError(error, 'NotFound'),
  )
  writeFileSync(`${archive}.gz`, gzipSync(readFileSync(archive)))
  assert.equal((await store.pull(`docker-archive:${archive}.gz`, quiet, soon())).digest, image.digest)
  // Older versions of docker save name a layer that they have already by a link.
  const [layer] = manifest.Layers
  renameSync(join(unpacked, layer), join(unpacked, 'shared.tar'))
  shell(`mkdir links; ln -s ../shared.tar links/layer.tar`, unpacked)
  writeFileSync(join(unpacked, 'manifest.json'), JSON.stringify([{ ...manifest, Layers: ['links/layer.tar'] }]))
  sh('tar', '-C', unpacked, '-cf', `${archive}.linked`, 'manifest.json', manifest.Config, 'shared.tar', 'links')
  await store.remove(image.digest, soon())
  assert.equal((await store.pull(`docker-archive:${archive}.linked`, quiet, soon())).digest, image.digest)
  // Two images in one file must be told apart.
  const both = [manifest, { ...manifest, RepoTags: ['other:1'] }].map((one) => ({ ...one, Layers: ['shared.tar'] }))
  writeFileSync(join(unpacked, 'manifest.json'), JSON.stringify(both))
  sh('tar', '-C', unpacked, '-cf', `${archive}.both`, 'manifest.json', manifest.Config, 'shared.tar')
  await assert.rejects(store.pull(`docker-archive:${archive}.both`, quiet, soon()), /several images/)
  assert.equal((await store.pull(`docker-archive:${archive}.both:other:1`, quiet, soon())).digest, image.digest)
})

test('ext4 on demand holds what the image holds, xattrs included', async () => {
  const { store } = open()
  const tree = fresh('tree')
  shell(
    'mkdir d; head -c 70000 /dev/urandom > d/file; ln d/file d/again; setfattr -n user.x -v 0xff00fe d/file; setfattr -n trusted.t -v t d; mknod null c 1 3; mkfifo pipe; ln -s /absolute link; chown 1000:5 d/file; chmod 6755 d/file; chmod 1777 .',
    tree,
  )
  const image = await store.pull(`dir:${tree}`, quiet, soon())
  const output = join(fresh('out'), 'image.ext4')
  const made = await store.ext4(image.digest, output, { sizeBytes: 100 * MIB }, quiet, soon())
  assert.deepEqual(made, { digest: image.digest, sizeBytes: 100 * MIB })
  assert.equal(statSync(output).size, 100 * MIB)
  sh('e2fsck', '-fn', output)
  mounted('ext4', output, (path) => assert.deepEqual(listing(path), listing(tree)))
  const bare = { xattrs: false }
  mounted('erofs', store.path(image.digest, 'erofs'), (path) =>
    assert.deepEqual(listing(path, bare), listing(tree, bare)),
  )
  const kept = (await store.xattrs(image.digest)).map(
    ({ path, name, value }) => `${path} ${name}=${value.toString('hex')}`,
  )
  assert.deepEqual(kept.sort(), ['/d trusted.t=74', '/d/again user.x=ff00fe'])
  await assert.rejects(store.ext4(`sha256:${'0'.repeat(64)}`, output, {}, quiet, soon()), (error) =>
    isError(error, 'NotFound'),
  )
  await assert.rejects(store.xattrs(`sha256:${'0'.repeat(64)}`), (error) => isError(error, 'NotFound'))
})

test('an image of another node is taken in whole or not at all', async () => {
  const one = open()
  const { path } = await layout()
  const image = await one.store.pull(`oci:${path}`, quiet, soon())
  const file = join(fresh('exported'), 'image.erofs')
  copyFileSync(one.store.path(image.digest, 'erofs'), file)
  const two = open()
  const taken = await two.store.importErofs(file, image, soon())
  assert.deepEqual(taken, image)
  assert.deepEqual(await two.store.resolve(image.digest), image)
  assert.ok(existsSync(file))
  assert.deepEqual(await two.store.importErofs(file, image, soon()), image)
  const other: NodeImage = { ...image, digest: `sha256:${'1'.repeat(64)}` }
  writeFileSync(file, readFileSync(file).subarray(0, 5000))
  await assert.rejects(two.store.importErofs(file, other, soon()), (error) => isError(error, 'ImageInvalid'))
  await assert.rejects(two.store.importErofs(join(path, 'missing'), other, soon()), (error) =>
    isError(error, 'NotFound'),
  )
  assert.equal((await two.store.list(soon())).length, 1)
  assert.deepEqual(readdirSync(join(two.path, 'tmp')), [])
})

test('recovery removes what a crash left, and only that', async () => {
  const { path, store } = open()
  const { path: from, digest } = await layout()
  await store.recover(soon())
  const image = await store.pull(`oci:${from}`, quiet, soon())
  mkdirSync(join(path, 'tmp', '.icebox-1-1-left', 'image'), { recursive: true })
  writeFileSync(join(path, 'tmp', '.icebox-1-1-left', 'image', 'image.erofs'), 'half')
  mkdirSync(join(path, 'a'.repeat(64)))
  writeFileSync(join(path, 'a'.repeat(64), 'image.erofs'), 'no record')
  mkdirSync(join(path, 'something-else'))
  const next = openImageStore({ directory: path, cacheDirectory })
  await next.recover(soon())
  assert.deepEqual(readdirSync(path).sort(), [digest.slice(7), 'something-else', 'tmp'])
  assert.deepEqual(readdirSync(join(path, 'tmp')), [])
  assert.deepEqual(await next.list(soon()), [image])
})

test('a killed pull leaves what the next one removes', async () => {
  const place = fresh('killed')
  const { path: from, digest } = await layout('x'.repeat(5_000_000))
  const output = join(place, 'image.ext4')
  const work = join(place, 'work')
  const script = `
    import { pullToExt4 } from ${JSON.stringify(join(import.meta.dirname, 'pull-ext4.ts'))}
    const progress = ({ phase }) => { if (phase === 'unpack') process.kill(process.pid, 'SIGKILL') }
    await pullToExt4('oci:${from}', '${output}', { cacheDirectory: '${cacheDirectory}', workDirectory: '${work}' }, progress, AbortSignal.timeout(60000))`
  assert.throws(() => sh(process.execPath, '--input-type=module', '-e', script), /SIGKILL|Command failed/)
  assert.ok(readdirSync(place).some((name) => name.startsWith('.icebox-')))
  assert.ok(!existsSync(output))
  const pulled = await pullToExt4(`oci:${from}`, output, { cacheDirectory, workDirectory: work }, quiet, soon())
  assert.deepEqual(readdirSync(place).sort(), ['image.ext4', 'image.ext4.json', 'work'])
  assert.deepEqual(readdirSync(work), [])
  assert.deepEqual(JSON.parse(readFileSync(`${output}.json`, 'utf8')), pulled)
  assert.equal(pulled.digest, digest)
  assert.equal(pulled.sizeBytes, statSync(output).size)
})

test('sizes of an ext4 file: as asked, refused in words, replaced only when whole', async () => {
  const { path: from } = await layout()
  const place = fresh('sizes')
  const output = join(place, 'x.ext4')
  const options = { cacheDirectory, workDirectory: join(place, 'work') }
  const pull = (sizeBytes: number) => pullToExt4(`oci:${from}`, output, { ...options, sizeBytes }, quiet, soon())
  assert.equal((await pull(32 * MIB + 5)).sizeBytes, 32 * MIB)
  const before = readFileSync(output)
  for (const bad of [0, -1, 1.5, 1000, Number.NaN, 2 ** 53])
    await assert.rejects(pull(bad), (error) => isError(error, 'InvalidArgument'), `${bad}`)
  const elsewhere = (to: string) => pullToExt4(`oci:${from}`, to, options, quiet, soon())
  for (const bad of [place, join(output, 'below')])
    await assert.rejects(elsewhere(bad), (error) => isError(error, 'InvalidArgument'), bad)
  assert.ok(readFileSync(output).equals(before))
  assert.equal((await pull(64 * MIB)).sizeBytes, 64 * MIB)
  sh('e2fsck', '-fn', output)
})
