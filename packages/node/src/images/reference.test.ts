import assert from 'node:assert/strict'
import { resolve } from 'node:path'
import { test } from 'node:test'
import { isError } from '@icebox/model'
import { defaultFileName, parseReference } from './reference.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`
const here = (path: string) => resolve(path)

test('names of registries mean what they mean to docker', () => {
  const meanings: Record<string, string> = {
    python: 'docker.io/library/python:latest',
    'python:3.12': 'docker.io/library/python:3.12',
    'owner/app:1': 'docker.io/owner/app:1',
    'docker.io/python': 'docker.io/library/python:latest',
    'docker.io/library/python:3.12': 'docker.io/library/python:3.12',
    'index.docker.io/owner/app': 'docker.io/owner/app:latest',
    'localhost/app': 'localhost/app:latest',
    'localhost:5000/a/b': 'localhost:5000/a/b:latest',
    'localhost:5000/a/b:2': 'localhost:5000/a/b:2',
    '[::1]:5000/a:x': '[::1]:5000/a:x',
    'ghcr.io/owner/deep/app:v1.2-rc.1': 'ghcr.io/owner/deep/app:v1.2-rc.1',
    [`python@${DIGEST}`]: `docker.io/library/python@${DIGEST}`,
    [`python:3.12@${DIGEST}`]: `docker.io/library/python@${DIGEST}`,
    'debian:12': 'docker.io/library/debian:12',
    'debian:bookworm-slim': 'docker.io/library/debian:bookworm-slim',
    'docker.io/library/debian:bookworm': 'docker.io/library/debian:bookworm',
  }
  for (const [text, meaning] of Object.entries(meanings)) {
    const reference = parseReference(text)
    assert.equal(reference.kind, 'registry', text)
    assert.equal(reference.canonical, meaning)
    assert.equal(parseReference(meaning).canonical, meaning)
  }
})

test('places of this machine become absolute', () => {
  const meanings: Record<string, string> = {
    'oci:layout:1.0': `oci:${here('layout')}:1.0`,
    'oci:/a:b/layout': 'oci:/a:b/layout',
    'oci:/a:b/layout:tag': 'oci:/a:b/layout:tag',
    'docker-archive:save.tar': `docker-archive:${here('save.tar')}`,
    'docker-archive:/save.tar:app:1': 'docker-archive:/save.tar:docker.io/library/app:1',
    'docker-archive:/save.tar:localhost:5000/app': 'docker-archive:/save.tar:localhost:5000/app:latest',
    'dir:rootfs': `dir:${here('rootfs')}`,
    'dir:/': 'dir:/',
    'tar:a:b.tar': `tar:${here('a:b.tar')}`,
  }
  for (const [text, meaning] of Object.entries(meanings)) assert.equal(parseReference(text).canonical, meaning)
})

test('only a suite of Debian is a bootstrap', () => {
  assert.deepEqual(parseReference('debian:bookworm'), {
    kind: 'debian',
    canonical: 'debian:bookworm',
    suite: 'bookworm',
    packages: [],
  })
  assert.equal(parseReference('debian:sid+git,g++,curl,git').canonical, 'debian:sid+curl,g++,git')
  assert.equal(parseReference('debian:sid+git,curl@user').canonical, 'debian:sid+curl,git@user')
  assert.deepEqual(parseReference('debian:bookworm@agent-1'), {
    kind: 'debian',
    canonical: 'debian:bookworm@agent-1',
    suite: 'bookworm',
    packages: [],
    user: 'agent-1',
  })
  assert.equal(parseReference(`debian:bookworm@${DIGEST}`).canonical, `docker.io/library/debian@${DIGEST}`)
})

test('what is no reference is refused with the reason', () => {
  const wrong = [
    '',
    ' ',
    'Python',
    'a//b',
    '-a',
    'a:b:c',
    'oci:',
    'dir:',
    'tar:',
    'python@sha256:abc',
    'python:bad tag',
    'bad_host_/x:y/z',
    'debian:12+git',
    'debian:bookworm+',
    'debian:bookworm+git;reboot',
    'debian:bookworm+--hook',
    'debian:bookworm@',
    'debian:bookworm@Root',
    'debian:bookworm@a:b/c',
    `debian:bookworm+git@${DIGEST}`,
    'https://example.com/app',
    `dir:/${'a'.repeat(5000)}`,
  ]
  for (const text of wrong)
    assert.throws(
      () => parseReference(text),
      (error) => isError(error, 'InvalidArgument'),
      JSON.stringify(text),
    )
})

test('a file made of an image is called after it', () => {
  assert.equal(defaultFileName('python:3.12'), 'python-3.12.ext4')
  assert.equal(defaultFileName(`ghcr.io/a/b@${DIGEST}`), 'b-sha256-aaaaaaaaaaaa.ext4')
  assert.equal(defaultFileName('oci:/x/layout:v1'), 'layout-v1.ext4')
  assert.equal(defaultFileName('docker-archive:/x/app.tar.gz'), 'app.ext4')
  assert.equal(defaultFileName('dir:/'), 'root.ext4')
  assert.equal(defaultFileName('debian:bookworm+git'), 'debian-bookworm-git.ext4')
  assert.equal(defaultFileName('debian:bookworm+git@user'), 'debian-bookworm-git-user.ext4')
})
