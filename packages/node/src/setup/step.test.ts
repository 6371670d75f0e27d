import assert from 'node:assert/strict'
import { test } from 'node:test'
import { stepReport } from './report.ts'
import { runSteps, type Step, type StepEvent } from './step.ts'

const signal = new AbortController().signal

function step(name: string, changes: Partial<Step> = {}): Step {
  return {
    name,
    why: `needs ${name}`,
    remedy: `get ${name}`,
    isDone: async () => undefined,
    run: async (say) => {
      say('working')
      return `made ${name}`
    },
    ...changes,
  }
}
const there = (name: string) =>
  step(name, { isDone: async () => '1.0', run: () => Promise.reject(new Error('done twice')) })
const broken = (name: string) => step(name, { run: () => Promise.reject(new Error('no network\nat all')) })

function transcript(isTTY: boolean) {
  const written: string[] = []
  const report = stepReport({ isTTY, columns: 40, write: (text: string) => written.push(text) })
  return { report, text: () => written.join('').replaceAll(/\d+(\.\d)? m?s/g, 'TIME') }
}

test('steps run in order, and only those that are not done', async () => {
  const events: StepEvent[] = []
  await runSteps([there('a'), step('b'), there('c')], (event) => events.push(event), signal)
  assert.deepEqual(
    events.map((event) => `${event.kind} ${event.step.name}`),
    ['present a', 'start b', 'line b', 'done b', 'present c'],
  )
})

test('the first failure ends it, with the step’s name, its reason and its remedy', async () => {
  const events: StepEvent[] = []
  await assert.rejects(
    runSteps([step('a'), broken('b'), step('c')], (event) => events.push(event), signal),
    { code: 'Unavailable', message: 'set-up failed at b: no network\nat all', remedy: 'get b' },
  )
  assert.ok(!events.some((event) => event.step.name === 'c'))
})

test('an interrupted step fails with the interruption and not with a remedy', async () => {
  const stop = new AbortController()
  const interrupted = step('a', {
    run: () => {
      stop.abort(new Error('Ctrl-C'))
      return Promise.reject(new Error('killed'))
    },
  })
  await assert.rejects(
    runSteps([interrupted], () => {}, stop.signal),
    /^Error: Ctrl-C$/,
  )
})

test('a log shows one line for each step and no control characters', async () => {
  const { report, text } = transcript(false)
  await assert.rejects(runSteps([there('a'), step('b'), broken('c')], report, signal))
  assert.equal(
    text(),
    [
      '✔ a              already there: 1.0 (TIME)',
      '… b              needs b: not there yet',
      '✔ b              made b in TIME',
      '… c              needs c: not there yet',
      '✘ c              failed after TIME',
      '    no network',
      '    at all',
      '  What to do: get c',
      '',
    ].join('\n'),
  )
})

test('a terminal also shows what a step is doing, cut to its width, and takes it away again', async () => {
  const { report, text } = transcript(true)
  const wordy = step('b', {
    run: async (say) => {
      say(`\x1b[31m${'x'.repeat(100)}`)
      return 'made b'
    },
  })
  await runSteps([wordy], report, signal)
  const escaped = JSON.stringify(text()).replaceAll('\\u001b', 'ESC')
  assert.ok(escaped.includes(`\\rESC[K  ESC[2m${'x'.repeat(37)}ESC[0m\\rESC[KESC[32m`), escaped)
})
