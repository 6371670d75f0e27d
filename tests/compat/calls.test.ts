import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { Calls } from './calls.ts'
import { run } from './compat.ts'

const MODULE = `
class Base { static list() { return new Pages() } inherited() { return this.own() } }
class Pages { async next() { return [new Handle()] } }
class Handle { wait() {} }
class Files { read() {} #inner() {} }
class Box extends Base {
  constructor() { super(); this.files = new Files(); this.secret = new Handle() }
  static create() { return Promise.resolve(new this()) }
  own() { return 1 }
  hidden() {}
  static own() {}
  static hidden() {}
  get state() { return 'x' }
}
class BoxError extends Error {}
const helper = () => 2
helper.more = () => 3
module.exports = { Box, BoxError, helper, VALUE: 1 }
`
const DECLARATIONS = `
declare class Box extends Base {
  private secret;
  private hidden;
  private static own;
  own(): number;
}
`

suite('calls', () => {
  let directory: string
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'icebox-calls-'))
    await writeFile(join(directory, 'index.cjs'), MODULE)
    await writeFile(join(directory, 'index.d.ts'), DECLARATIONS)
  })
  after(() => rm(directory, { recursive: true, force: true }))

  const load = () => {
    const path = join(directory, 'index.cjs')
    const from = createRequire(path)
    delete from.cache[path]
    const calls = new Calls(directory)
    return { calls, client: calls.watch(from(path)) }
  }

  test('the list is that of the exports, without what is private, and grows with what calls give', async () => {
    const { calls, client } = load()
    const exported = ['Box.create', 'Box.hidden', 'Box.list', 'box.inherited', 'box.own', 'helper', 'helper.more']
    assert.deepEqual(calls.list, { all: exported, called: [] })
    const box = await client.Box.create()
    assert.ok(box instanceof client.Box)
    assert.equal(client.VALUE, 1)
    assert.deepEqual(calls.list.all, [...exported, 'box.files.read'].sort())
  })

  test('only what a test itself calls counts', async () => {
    const { calls, client } = load()
    const box = await client.Box.create()
    assert.equal(box.inherited(), 1)
    assert.equal(box.state, 'x')
    assert.deepEqual(calls.list.called, ['Box.create', 'box.inherited'])
    box.files.read()
    assert.equal(client.helper.more(), 3)
    const [handle] = await client.Box.list().next()
    handle.wait()
    const called = [
      'Box.create',
      'Box.list',
      'box.files.read',
      'box.inherited',
      'handle.wait',
      'helper.more',
      'pages.next',
    ]
    assert.deepEqual(calls.list.called, called)
    const uncalled = calls.list.all.filter((call) => !called.includes(call))
    assert.deepEqual(uncalled, ['Box.hidden', 'box.own', 'helper'])
  })

  test('a class that a client makes of an exported one counts as that', async () => {
    const { calls, client } = load()
    const Bound = class extends client.Box {}
    await Bound.create()
    assert.deepEqual(calls.list.called, ['Box.create'])
  })
})

const PYTHON = `
__all__ = ["Box", "AsyncBox", "BoxError", "helper"]
class BoxError(Exception): pass
class Handle:
    def wait(self): return 1
class Files:
    def read(self): return self._inner()
    def _inner(self): return 2
class Base:
    @classmethod
    def list(cls): return [Handle()]
class Variant:
    def __init__(self, method): self.method = method
    def __get__(self, instance, owner):
        return lambda *args: (instance is None, *args)
class Box(Base):
    @classmethod
    def create(cls): return cls()
    @property
    def files(self): return Files()
    kill = Variant("kill")
    @staticmethod
    def still(): return helper()
    def forgotten(self): pass
class AsyncBox(Base):
    @classmethod
    async def create(cls):
        cls.list()
        return cls()
    async def own(self): return 3
def helper(): return 4
`
const PROGRAM = `
import asyncio
from fixture import AsyncBox, Box
box = Box.create()
assert box.kill(1) == (False, 1) and Box.kill(2) == (True, 2)
assert box.files.read() == 2 and Box.still() == 4
assert Box.list()[0].wait() == 1
async def main():
    assert await (await AsyncBox.create()).own() == 3
asyncio.run(main())
`

test('calls of a Python package are told in the same way', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-calls-'))
  try {
    await writeFile(join(directory, 'fixture.py'), PYTHON)
    await writeFile(join(directory, 'program.py'), PROGRAM)
    const result = join(directory, 'calls.json')
    const words = [
      'python3',
      join(import.meta.dirname, 'python/calls.py'),
      'fixture',
      join(directory, 'program.py'),
      result,
    ]
    const variables = { PYTHONPATH: directory, PYTHONDONTWRITEBYTECODE: '1' }
    assert.deepEqual(await run(words, variables), { status: 0, stdout: '', stderr: '' })
    assert.deepEqual(JSON.parse(await readFile(result, 'utf8')), {
      all: [
        ...['AsyncBox.create', 'AsyncBox.list', 'AsyncBox.own'],
        ...[
          'Box.create',
          'Box.files.read',
          'Box.forgotten',
          'Box.kill',
          'Box.list',
          'Box.still',
          'Handle.wait',
          'helper',
        ],
      ],
      called: [
        ...['AsyncBox.create', 'AsyncBox.own'],
        ...['Box.create', 'Box.files.read', 'Box.kill', 'Box.list', 'Box.still', 'Handle.wait'],
      ],
    })
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
})
