import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { styleText } from 'node:util'
import { BASE_IMAGE, stepReport } from '@icebox/node'
import { type Exec, Icebox, type Sandbox } from '@icebox/sdk'
import { openIcebox } from './compose.ts'
import { diagnose } from './doctor/diagnose.ts'
import { diagnosisText } from './doctor/text.ts'

/**
 * The main job on real input, for a person to watch: an image becomes a template, a template a sandbox, the sandbox forks with its
 * processes alive, pauses to nothing and comes back. Ends 0 only when everything shown is true.
 */

/**
 * Counts in memory only: what it prints after a restore can come from nowhere but its own process. With each number goes a
 * random one, so that two sandboxes with the same line were the same sandbox when it was written.
 */
const COUNTER = `
import os, time
count = 0
history = open('/tmp/history', 'w', buffering=1)
while True:
    count += 1
    history.write(f'{count} {os.urandom(4).hex()}\\n')
    time.sleep(0.01)
`
const FORKS = 5

const title = (text: string) => console.log(`\n${styleText('bold', text)}`)
const took = (milliseconds: number) =>
  milliseconds < 10_000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`
function line(what: string, milliseconds: number | undefined, remark = ''): void {
  console.log(
    `  ${what.padEnd(44)} ${styleText('cyan', (milliseconds === undefined ? '' : took(milliseconds)).padStart(8))}  ${styleText('dim', remark)}`,
  )
}
async function timed<T>(work: () => Promise<T>): Promise<[T, number]> {
  const started = performance.now()
  return [await work(), performance.now() - started]
}

/** Says what was expected and ends with failure when it is not so. */
function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`this should hold and does not: ${what}`)
}

async function output(exec: Exec): Promise<string> {
  const { exitCode, stdout, stderr } = await exec
  expect(exitCode === 0, `a command ends well, but: ${stderr.trim()}`)
  return stdout.trim()
}

/** All that the counter has written, oldest first. */
const history = async (sandbox: Sandbox): Promise<string[]> =>
  (await output(sandbox.exec(['cat', '/tmp/history']))).split('\n')
const countOf = (line: string | undefined): number => Number(line?.split(' ')[0] ?? Number.NaN)
const count = async (sandbox: Sandbox): Promise<number> =>
  countOf(await output(sandbox.exec(['tail', '-n1', '/tmp/history'])))
const counter = (sandbox: Sandbox): Promise<string> => output(sandbox.exec(['pgrep', '-f', 'history.write']))
/** Waits until the counter has passed the number. */
async function countsOn(sandbox: Sandbox, from: number): Promise<number> {
  for (let tries = 0; tries < 200; tries += 1) {
    const now = await count(sandbox)
    if (now > from) return now
  }
  throw new Error(`the counter in ${sandbox.id} does not go on from ${from}`)
}
/** How many lines at the start are the same in all. */
function sharedLines(histories: string[][]): number {
  const [first = [], ...others] = histories
  const differs = first.findIndex((line, index) => others.some((other) => other[index] !== line))
  return differs < 0 ? first.length : differs
}

async function story(icebox: Icebox): Promise<void> {
  title('An image becomes a template')
  const [image, imageMs] = await timed(() => icebox.images.pull(BASE_IMAGE))
  line(`image ${image.id.slice(0, 12)}`, imageMs, `${BASE_IMAGE}, ${Math.round(image.sizeBytes / 2 ** 20)} MiB`)
  const [template, templateMs] = await timed(() =>
    icebox.templates.build({
      name: 'quickstart',
      image: image.digest,
      startCommand: ['python3', '-c', COUNTER],
      readyCommand: ['test', '-s', '/tmp/history'],
    }),
  )
  const bootMs = template.bootMs ?? templateMs
  line('template quickstart, built', templateMs, 'boots once, waits until ready, keeps its snapshot')

  title('A sandbox starts from the snapshot')
  const [sandbox, createMs] = await timed(() => icebox.sandboxes.create({ template: 'quickstart' }))
  const process = await counter(sandbox)
  line(
    `sandbox ${sandbox.id}`,
    createMs,
    `cold boot until ready took ${took(bootMs)}: ${(bootMs / createMs).toFixed(1)} times as long`,
  )
  line('  a Python process counts in memory', undefined, `process ${process} is at ${await count(sandbox)}`)
  const [, execMs] = await timed(() => output(sandbox.exec(['/bin/true'])))
  line('  a command in it', execMs)

  title('A snapshot, and five forks that go on from it')
  const [snapshot, snapshotMs] = await timed(() => sandbox.snapshot({ name: 'quickstart-snapshot' }))
  line(
    `snapshot ${snapshot.id}`,
    snapshotMs,
    `${Math.round((snapshot.sizeBytes ?? 0) / 2 ** 20)} MiB, the sandbox stood still for ${took(snapshot.stoppedMs ?? 0)}`,
  )
  const [forks, forkMs] = await timed(() => sandbox.fork(FORKS))
  line(`${FORKS} forks`, forkMs, `${took(forkMs / FORKS)} each`)
  const facts = await Promise.all(
    forks.map(async (fork) => {
      const script = 'head -c 8 /dev/urandom | od -An -tx1 | tr -d " \\n"; echo; cat /etc/machine-id; hostname'
      const [random = '', machineId = '', hostname = ''] = (await output(fork.exec(['sh', '-c', script]))).split('\n')
      await output(fork.exec(['sh', '-c', `echo ${random} > /root/mine`]))
      return { fork, counter: await counter(fork), history: await history(fork), random, machineId, hostname }
    }),
  )
  const shared = sharedLines([...facts.map((fact) => fact.history), await history(sandbox)])
  line(
    '  all go on from the same number',
    undefined,
    `${countOf(facts[0]?.history[shared - 1])}: up to there their histories are one`,
  )
  for (const fact of facts) {
    const next = fact.history[shared]
    line(
      `  fork ${fact.fork.id}`,
      undefined,
      `process ${fact.counter} wrote ${next}; random ${fact.random}, machine-id ${fact.machineId.slice(0, 8)}…`,
    )
    expect(fact.counter === process, 'a fork goes on with the process of its source')
    expect(countOf(next) === shared + 1, 'a fork goes on with the next number')
  }
  expect(
    shared > 0 && new Set(facts.map((fact) => fact.history[shared])).size === FORKS,
    'forks share a past and no future',
  )
  for (const key of ['random', 'machineId', 'hostname'] as const) {
    expect(new Set(facts.map((fact) => fact[key])).size === FORKS, `no two forks have the same ${key}`)
  }
  const mine = await Promise.all(forks.map((fork) => output(fork.exec(['cat', '/root/mine']))))
  expect(
    mine.every((text, index) => text === facts[index]?.random),
    'forks do not see each other’s files',
  )
  await countsOn(sandbox, shared)
  line('  the source goes on too', undefined, 'each fork has its own memory, disk and identity')

  title('Paused to nothing, and back under the same id')
  const before = await count(sandbox)
  const [, pauseMs] = await timed(() => sandbox.pause())
  line('pause', pauseMs, 'its memory, processes and disk are durable, the machine is being freed')
  const refused = await sandbox.exec(['true']).then(
    () => undefined,
    (error: Error) => error,
  )
  expect(refused !== undefined, 'a paused sandbox runs nothing')
  const [, resumeMs] = await timed(() => sandbox.resume())
  const after = await countsOn(sandbox, before)
  expect((await counter(sandbox)) === process, 'the same process goes on after the pause')
  const lines = await history(sandbox)
  expect(
    lines.every((text, index) => countOf(text) === index + 1),
    'no number is missing or doubled',
  )
  line(
    'resume',
    resumeMs,
    `process ${process} goes on: it was at ${before}, now ${after}, later ${await countsOn(sandbox, after)}`,
  )
  const [, deleteMs] = await timed(() => Promise.all([sandbox, ...forks].map((each) => each.delete())))
  line(`${FORKS + 1} sandboxes deleted`, deleteMs)

  title('Against the cold boot')
  for (const [name, milliseconds] of [
    ['create', createMs],
    ['fork, each', forkMs / FORKS],
    ['resume', resumeMs],
  ] as const) {
    line(name, milliseconds, `boot until ready ${took(bootMs)}: ${(bootMs / milliseconds).toFixed(1)} ×`)
  }
}

const interrupted = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const)
  process.once(name, () => interrupted.abort(new Error(`interrupted by ${name}`)))

const started = performance.now()
const { signal } = interrupted
title('Icebox quickstart')
const diagnosis = await diagnose(signal)
console.log(diagnosisText(diagnosis))
const directory = await mkdtemp(join(process.env.TMPDIR ?? '/var/tmp', 'icebox-quickstart-'))
try {
  const server = await openIcebox(
    {
      dataDirectory: directory,
      reach: { listen: { host: '127.0.0.1', port: 0 } },
      report: stepReport(process.stdout),
      onShutdown: () => undefined,
    },
    signal,
  )
  try {
    console.log(`server at ${server.url}, ${server.driver}`)
    const told = new Promise<never>((_, reject) =>
      signal.addEventListener('abort', () => reject(signal.reason), { once: true }),
    )
    await Promise.race([story(new Icebox({ url: server.url, dataDirectory: directory })), told])
  } finally {
    await server.close('kill', AbortSignal.timeout(60_000))
  }
  console.log(`\n${styleText('green', '✔')} everything shown was checked; ${took(performance.now() - started)} in all.`)
  console.log('Next: ./icebox up -d && ./icebox run base -- uname -a    (./icebox --help for the rest)')
  console.log('For programs that use E2B: eval "$(./icebox e2b env)"')
} catch (error) {
  console.error(error instanceof Error ? `✘ ${error.message}` : error)
  process.exitCode = 1
} finally {
  await rm(directory, { recursive: true, force: true })
}
