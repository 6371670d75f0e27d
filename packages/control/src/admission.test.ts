import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { isError, newSandboxId, type SandboxState } from '@icebox/model'
import { Admission } from './admission.ts'
import { type OfProject, ofProject } from './cache/collection.ts'
import { type SandboxSummary, summaryOf } from './cache/summary.ts'
import { Limits } from './limits.ts'
import { metadataOf, sandboxOf, statusOf } from './testing.ts'

const sandbox = (name: string, state: SandboxState, namespace = 'mine'): SandboxSummary =>
  summaryOf('Sandbox', sandboxOf(statusOf(state), { metadata: metadataOf(name, { namespace }) }))

/** An admission among sandboxes that are written by `note`. */
class NotedAdmission extends Admission {
  readonly #written: Map<string, OfProject<'Sandbox'>>

  constructor(limits: Limits, written: Map<string, OfProject<'Sandbox'>>, stopping: AbortSignal) {
    super(limits, (project) => written.get(project) ?? ofProject('Sandbox', []), stopping)
    this.#written = written
  }

  note(summary: SandboxSummary, gone: boolean): void {
    const own: OfProject<'Sandbox'> = this.#written.get(summary.namespace) ?? ofProject('Sandbox', [])
    const before = own.first('name', summary.name)
    if (before !== undefined) own.remove(before)
    if (!gone) own.add(summary)
    this.#written.set(summary.namespace, own)
  }
}

const open = (limits: Partial<Limits>, stopping = new AbortController().signal) =>
  new NotedAdmission(Limits.parse(limits), new Map(), stopping)

/** A start that is written at once and ends when it is told to. */
function starting(admission: NotedAdmission, state: 'running' | 'failed' = 'running') {
  const id = newSandboxId()
  const { promise, resolve } = Promise.withResolvers<void>()
  let begun = false
  const accepted = admission.start('mine', id, async () => {
    begun = true
    admission.note(sandbox(id, 'creating'), false)
    const settled = promise.then(() => admission.note(sandbox(id, state), false))
    return { resource: undefined, settled }
  })
  accepted.catch(() => undefined)
  return { id, accepted, finish: resolve, begun: () => begun }
}
const refused = (error: unknown) => isError(error, 'TooManyRequests')
const settle = () => sleep(1)

test('of starts at the same time no more are begun than places are left, and the refused begin nothing', async () => {
  const admission = open({ sandboxes: 3 })
  const starts = Array.from({ length: 10 }, () => starting(admission))
  const outcomes = await Promise.allSettled(starts.map(({ accepted }) => accepted))
  assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 3)
  assert.equal(starts.filter(({ begun }) => begun()).length, 3)
  await assert.rejects(starting(admission).accepted, refused)
  const [first, second] = starts
  first?.finish()
  await settle()
  await assert.rejects(starting(admission).accepted, refused, 'one that runs keeps its place')
  admission.note(sandbox(first?.id ?? '', 'paused'), false)
  await starting(admission).accepted
  await assert.rejects(starting(admission).accepted, refused)
  admission.note(sandbox(second?.id ?? '', 'deleting'), false)
  await starting(admission).accepted
  const elsewhere = admission.start('other', newSandboxId(), async () => ({ resource: 1, settled: Promise.resolve(1) }))
  assert.equal((await elsewhere).resource, 1, 'another project has places of its own')
})

test('a start that could not be begun keeps no place and no turn', async () => {
  const admission = open({ sandboxes: 1, starts: 1, queue: 0 })
  for (let time = 0; time < 3; time += 1)
    await assert.rejects(
      admission.start('mine', newSandboxId(), async () => {
        throw new Error('no')
      }),
      { message: 'no' },
    )
  await starting(admission).accepted
})

test('what comes while all turns are taken waits, so many and so long', async () => {
  const admission = open({ starts: 2, queue: 2, queueSeconds: 600 })
  const running = [starting(admission), starting(admission)]
  await Promise.all(running.map(({ accepted }) => accepted))
  const waiting = [starting(admission), starting(admission)]
  await assert.rejects(starting(admission).accepted, (error) => {
    assert.ok(isError(error, 'TooManyRequests'))
    assert.equal(error.details.retryAfterSeconds, 600)
    return true
  })
  await settle()
  assert.deepEqual(
    waiting.map(({ begun }) => begun()),
    [false, false],
  )
  running[1]?.finish()
  await waiting[0]?.accepted
  await settle()
  assert.equal(waiting[1]?.begun(), false)
  running[0]?.finish()
  await waiting[1]?.accepted

  const hasty = open({ starts: 1, queue: 5, queueSeconds: 0.01 })
  const holder = starting(hasty)
  await holder.accepted
  const late = starting(hasty)
  await assert.rejects(late.accepted, refused)
  assert.equal(late.begun(), false)
  holder.finish()
  await settle()
  await starting(hasty).accepted
})

test('one that is begun and not yet written has its place', async () => {
  const admission = open({ sandboxes: 1 })
  const { promise: written, resolve: write } = Promise.withResolvers<void>()
  const first = admission.start('mine', newSandboxId(), async () => {
    await written
    return { resource: 1, settled: Promise.resolve(1) }
  })
  await settle()
  await assert.rejects(starting(admission).accepted, refused)
  write()
  await first
})

test('a fork is refused as a whole before its snapshot, and afterwards none of its children is', async () => {
  const admission = open({ sandboxes: 4, starts: 3 })
  let saved = 0
  const fork = (count: number) => {
    const ids = Array.from({ length: count }, newSandboxId)
    const save = async () => {
      saved += 1
      // Whoever comes now finds the places of the children taken, though nothing of them is written.
      await assert.rejects(
        starting(admission).accepted,
        (error) => isError(error, 'TooManyRequests') && error.details.limit === 'sandboxes',
      )
    }
    return admission.startAfter('mine', ids, save, async (id) => {
      admission.note(sandbox(id, 'creating'), false)
      await settle()
      admission.note(sandbox(id, 'running'), false)
      return { resource: id, settled: Promise.resolve(id) }
    })
  }
  await assert.rejects(fork(5), refused)
  assert.equal(saved, 0)
  assert.deepEqual(
    (await fork(4)).map(({ status }) => status),
    Array(4).fill('fulfilled'),
  )
  assert.equal(saved, 1)
  await assert.rejects(fork(1), refused)

  const busy = open({ starts: 1, queue: 0 })
  await starting(busy).accepted
  await assert.rejects(
    busy.startAfter(
      'mine',
      [newSandboxId()],
      async () => assert.fail('it was saved'),
      async () => assert.fail(),
    ),
    refused,
  )
})

test('a turn that is set aside serves others', async () => {
  const admission = open({ starts: 1, queue: 1, queueSeconds: 600 })
  const { promise: built, resolve: finishBuild } = Promise.withResolvers<void>()
  const first = await admission.start('mine', newSandboxId(), async (turn) => ({
    resource: undefined,
    settled: turn.aside(() => built),
  }))
  const second = starting(admission)
  await second.accepted
  finishBuild()
  let over = false
  void first.settled.then(() => {
    over = true
  })
  await settle()
  assert.equal(over, false, 'it waits for another turn')
  second.finish()
  await first.settled
  await settle()
  await starting(admission).accepted
})

test('when the server stops, who waits is told', async () => {
  const stopping = new AbortController()
  const admission = open({ starts: 1 }, stopping.signal)
  await starting(admission).accepted
  const waiting = starting(admission)
  stopping.abort()
  await assert.rejects(waiting.accepted, (error) => isError(error, 'Unavailable'))
})
