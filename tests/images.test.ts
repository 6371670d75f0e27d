import assert from 'node:assert/strict'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { before, test } from 'node:test'
import { isError } from '@icebox/model'
import { BASE_IMAGE, cacheDirectory, openImageStore, pullToExt4 } from '@icebox/node'
import {
  filesBelow,
  listing,
  mounted,
  quiet,
  sh,
  shell,
  temporaryDirectory,
  xattrsOf,
} from '../packages/node/src/images/fixture.ts'

/** Images as umoci and skopeo make them must arrive as umoci itself unpacks them. */
const directory = temporaryDirectory()
const layout = join(directory, 'layout')
const archive = join(directory, 'archive.tar')
const oracle = join(directory, 'oracle', 'rootfs')
const places = { cacheDirectory: cacheDirectory(), workDirectory: join(directory, 'work') }
const soon = () => AbortSignal.timeout(1_800_000)
/** Runs a program of the image at this path. */
const inside = (path: string, ...words: string[]) =>
  sh('chroot', path, '/usr/bin/env', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', ...words)

/** Three layers: everything a file system can hold, then changes and removals, then an opaque directory. */
const FIRST = `
  mkdir -p bin etc/deep/er home/agent opaque/old var/empty 'a b'
  printf '#!/bin/sh\\n' > bin/tool; chmod 4755 bin/tool; printf x > bin/group; chmod 2755 bin/group
  ln bin/tool bin/tool-again; ln -s tool bin/tool-link; ln -s /etc/deep etc/absolute
  printf secret > etc/shadow; chmod 0640 etc/shadow; chown 0:42 etc/shadow
  printf hi > home/agent/file; chown -R 1000:1000 home/agent; chmod 0700 home/agent
  cp /bin/true bin/capable; setcap cap_net_raw,cap_sys_admin+ep bin/capable
  printf y > etc/marked; setfattr -n user.plain -v text etc/marked; setfattr -n user.bytes -v 0x00ff80fe etc/marked
  setfattr -n trusted.on -v directory etc/deep
  mkdir -p dev; mknod dev/null c 1 3; mknod dev/disk b 259 70000; mkfifo -m 0600 dev/pipe
  mkdir tmp; chmod 1777 tmp; printf 1 > opaque/one; printf 2 > opaque/old/two
  printf keep > etc/keep; printf gone > etc/gone; mkdir etc/gonedir; printf x > etc/gonedir/x; printf f > etc/becomes-directory
  mkdir etc/becomes-file; printf x > etc/becomes-file/x; printf z > "$(printf 'bytes\\377')"
  ln etc/keep etc/kept-by-link; printf ü > 'etc/ünïcode'; : > etc/empty; head -c 3000000 /dev/urandom > var/large
  touch -d '1969-07-20 20:17:40 UTC' etc/old; touch -d '2040-01-01 UTC' etc/new; touch -d '2020-02-02 02:02:02 UTC' etc/deep`
const SECOND = `
  rm -r etc/gone etc/gonedir etc/becomes-directory etc/becomes-file etc/keep
  mkdir etc/becomes-directory; printf n > etc/becomes-directory/new; printf n > etc/becomes-file
  ln bin/tool etc/tool-of-the-layer-below; printf changed > etc/shadow; chmod 0600 etc/marked
  printf more > etc/deep/er/more; chown 70000:70001 var/empty; ln etc/old etc/old-again`

before(() => {
  const bundle = join(directory, 'bundle')
  sh('umoci', 'init', '--layout', layout)
  sh('umoci', 'new', '--image', `${layout}:made`)
  for (const script of [FIRST, SECOND]) {
    sh('umoci', 'unpack', '--image', `${layout}:made`, bundle)
    shell(script, join(bundle, 'rootfs'))
    sh('umoci', 'repack', '--image', `${layout}:made`, bundle)
    shell('rm -r bundle', directory)
  }
  shell('mkdir opaque; printf new > opaque/new', directory)
  sh('umoci', 'insert', '--opaque', '--image', `${layout}:made`, join(directory, 'opaque'), '/opaque')
  const config = ['--config.env', 'A=b=c', '--config.workingdir', '/home/agent', '--config.user', '1000:1000']
  sh(
    'umoci',
    'config',
    '--image',
    `${layout}:made`,
    ...config,
    '--config.entrypoint',
    '/bin/tool',
    '--config.cmd',
    'run',
  )
  sh('umoci', 'unpack', '--image', `${layout}:made`, join(directory, 'oracle'))
  sh('skopeo', 'copy', '-q', `oci:${layout}:made`, `docker-archive:${archive}:made:1`)
})

for (const form of ['oci', 'docker-archive']) {
  const reference = () => (form === 'oci' ? `oci:${layout}:made` : `docker-archive:${archive}`)

  test(`${form}: an image arrives in the ext4 as umoci unpacks it`, async () => {
    const output = join(directory, `${form}.ext4`)
    const pulled = await pullToExt4(reference(), output, places, quiet, soon())
    assert.deepEqual(pulled.config.env.A, 'b=c')
    assert.deepEqual([pulled.config.workingDir, pulled.config.user], ['/home/agent', '1000:1000'])
    assert.deepEqual([pulled.config.entrypoint, pulled.config.cmd], [['/bin/tool'], ['run']])
    assert.deepEqual(JSON.parse(readFileSync(`${output}.json`, 'utf8')), pulled)
    sh('e2fsck', '-fn', output)
    mounted('ext4', output, (path) => assert.deepEqual(listing(path), listing(oracle)))
    assert.deepEqual(readdirSync(places.workDirectory), [])
  })

  test(`${form}: the same in the EROFS of the store, its xattrs beside`, async () => {
    const store = openImageStore({ directory: join(directory, `${form}-store`), cacheDirectory: places.cacheDirectory })
    const image = await store.pull(reference(), quiet, soon())
    const file = store.path(image.digest, 'erofs')
    assert.equal(statSync(file).size, image.sizeBytes)
    const bare = { xattrs: false }
    mounted('erofs', file, (path) => assert.deepEqual(listing(path, bare), listing(oracle, bare)))
    const kept = (await store.xattrs(image.digest)).map(
      ({ path, name, value }) => `${path} ${name}=0x${value.toString('hex')}`,
    )
    assert.deepEqual(kept.map((line) => line.slice(1)).sort(), xattrsOf(oracle))
    const output = join(directory, `${form}-demand.ext4`)
    await store.ext4(image.digest, output, {}, quiet, soon())
    mounted('ext4', output, (path) => assert.deepEqual(listing(path), listing(oracle)))
  })
}

test('a bootstrapped Debian is whole, small and can install packages', async () => {
  const store = openImageStore({ directory: join(directory, 'debian-store'), cacheDirectory: places.cacheDirectory })
  const image = await store.pull(BASE_IMAGE, quiet, soon())
  const phases: string[] = []
  assert.deepEqual(await store.pull(BASE_IMAGE, ({ phase }) => phases.push(phase), soon()), image)
  assert.deepEqual(phases, ['resolve'])
  assert.deepEqual((await store.resolve(BASE_IMAGE))?.digest, image.digest)
  assert.deepEqual([image.config.cmd, image.config.workingDir], [['/bin/bash'], '/'])
  mounted('erofs', store.path(image.digest, 'erofs'), (path) => {
    assert.equal(statSync(join(path, 'usr/bin/passwd')).mode & 0o7777, 0o4755)
    assert.match(inside(path, 'bash', '-c', 'apt-get --version; dpkg --audit'), /^apt /)
    assert.match(readFileSync(join(path, 'etc/apt/sources.list'), 'utf8'), /^deb .* bookworm main$/m)
    // Nothing of the host's way to the network, and no package lists.
    assert.deepEqual(
      filesBelow(join(path, 'etc/apt/apt.conf.d')).filter((file) => /host|proxy/.test(file)),
      [],
    )
    assert.deepEqual(readdirSync(join(path, 'var/lib/apt/lists')).sort(), ['lock', 'partial'])
  })
})

test('a bootstrapped Debian with a user is the same one, with the user', async () => {
  const store = openImageStore({ directory: join(directory, 'user-store'), cacheDirectory: places.cacheDirectory })
  const plain = await store.pull(BASE_IMAGE, quiet, soon())
  const image = await store.pull(`${BASE_IMAGE}@agent`, quiet, soon())
  assert.notEqual(image.digest, plain.digest)
  const { user, workingDir, env } = image.config
  assert.deepEqual([user, workingDir, env.LANG], ['agent', '/home/agent', 'C.UTF-8'])
  const linesOf = (digest: string) => mounted('erofs', store.path(digest, 'erofs'), (path) => listing(path))
  const before = new Set(linesOf(plain.digest))
  const added = linesOf(image.digest).filter((line) => !before.has(line))
  // Of each file a line for what it is and one for its content.
  const names = new Set(added.map((line) => line.replace(/^[0-9a-f]{64} {2}\.\//, '').split(' ')[0]))
  const home = ['', '.bash_logout', '.bashrc', '.profile'].map((name) => `home/agent/${name}`)
  const changed = ['etc/group', 'etc/gshadow', 'etc/passwd', 'etc/shadow']
  assert.deepEqual([...names].sort(), [...changed, 'etc/sudoers.d/agent', ...home].sort())
  mounted('erofs', store.path(image.digest, 'erofs'), (path) => {
    assert.equal(inside(path, 'id', 'agent'), 'uid=1000(agent) gid=1000(agent) groups=1000(agent)\n')
    assert.match(inside(path, 'pwck', '--read-only', '--quiet') ?? '', /^$/)
    assert.equal(inside(path, 'visudo', '--check', '--quiet'), '')
    assert.deepEqual(
      [statSync(join(path, 'home/agent')).uid, statSync(join(path, 'etc/shadow')).mode & 0o777],
      [1000, 0o640],
    )
  })
  const again = openImageStore({ directory: join(directory, 'again'), cacheDirectory: places.cacheDirectory })
  assert.equal((await again.pull(`${BASE_IMAGE}@agent`, quiet, soon())).digest, image.digest)
  await assert.rejects(
    store.pull(`${BASE_IMAGE}@daemon`, quiet, soon()),
    (error) => isError(error, 'InvalidArgument') && error.message.includes('/etc/passwd has one of that name'),
  )
})
