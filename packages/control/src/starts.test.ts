import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isError } from '@icebox/model'
import fc from 'fast-check'
import { Limits } from './limits.ts'
import { Starts, type Turn } from './starts.ts'

const open = (limits: Partial<Limits>, stopping = new AbortController().signal) =>
  new Starts(Limits.parse(limits), stopping)
const settle = () => new Promise((resolve) => setImmediate(resolve))

/** Starts of a project, which begin as they get their turns. */
function ask(starts: Starts, project: string, count: number, begun: { project: string; turn: Turn }[]): void {
  for (let asked = 0; asked < count; asked++)
    starts.turn(project).then(
      (turn) => begun.push({ project, turn }),
      () => undefined,
    )
}

test('a project that floods waits behind itself alone', async () => {
  const starts = open({ starts: 4, projectStarts: 2, queue: 100 })
  const begun: { project: string; turn: Turn }[] = []
  ask(starts, 'flood', 50, begun)
  ask(starts, 'other', 1, begun)
  await settle()
  assert.deepEqual(
    begun.map(({ project }) => project),
    ['flood', 'flood', 'other'],
  )
})

test('what becomes free goes to the projects in turn', async () => {
  const starts = open({ starts: 1, projectStarts: 1, queue: 100 })
  const begun: { project: string; turn: Turn }[] = []
  for (const project of ['a', 'b', 'c']) ask(starts, project, 3, begun)
  for (let ended = 0; ended < 9; ended++) {
    await settle()
    begun[ended]?.turn.end()
  }
  assert.equal(begun.map(({ project }) => project).join(''), 'abcabcabc')
})

test('the queue of one project is full for that project alone', async () => {
  const stopping = new AbortController()
  const starts = open({ starts: 2, projectStarts: 1, queue: 1 }, stopping.signal)
  await starts.turn('flood')
  const stopped = starts.turn('flood').catch(() => 'stopped')
  assert.throws(
    () => starts.turn('flood'),
    (error) => isError(error, 'TooManyRequests'),
  )
  const other = await starts.turn('other')
  other.end()
  stopping.abort()
  assert.equal(await stopped, 'stopped')
})

test('no more run at once than may, and everybody gets a turn', async () => {
  const projects = fc.array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 30 })
  await fc.assert(
    fc.asyncProperty(
      projects,
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 3 }),
      async (all, inAll, each) => {
        const starts = open({ starts: inAll, projectStarts: each, queue: 100 })
        const running: string[] = []
        let most = 0
        await Promise.all(
          all.map(async (project) => {
            const turn = await starts.turn(project)
            running.push(project)
            most = Math.max(most, running.length)
            assert.ok(running.filter((other) => other === project).length <= each)
            await settle()
            running.splice(running.indexOf(project), 1)
            turn.end()
          }),
        )
        assert.ok(most <= inAll)
      },
    ),
  )
})
