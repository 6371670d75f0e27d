import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { before, test } from 'node:test'
import { BASE_IMAGE, baseImageStep } from './base-image.ts'
import { guestBuild } from './guest.ts'
import { runscBuild } from './runsc.ts'
import { ensureRuntime, runtimeSteps } from './runtime.ts'
import { RUST } from './rust.ts'
import { runSteps, type StepEvent } from './step.ts'

const minutes = () => AbortSignal.timeout(1_800_000)

before(() => runSteps([...runtimeSteps(), baseImageStep], () => {}, minutes()))

test('after set-up every step is done, and making sure of it again reports nothing', async () => {
  for (const step of [...runtimeSteps(), baseImageStep]) {
    const found = await step.isDone(minutes())
    assert.ok(found, `${step.name} is not done`)
    assert.ok(step.remedy.length > 20 && step.why.length > 3, step.name)
  }
  const events: StepEvent[] = []
  const programs = await ensureRuntime((event) => events.push(event), minutes())
  assert.deepEqual(events, [])
  assert.deepEqual(programs, { runsc: (await runscBuild()).path, guest: (await guestBuild()).path })
  assert.equal(await baseImageStep.isDone(minutes()), BASE_IMAGE)
})

test('the guest agent is a static program', async () => {
  const { path } = await guestBuild()
  const elf = await readFile(path)
  assert.equal(elf.subarray(0, 4).toString('latin1'), '\x7fELF')
  // A program header of type 3 would name the dynamic loader, which an image need not have.
  const [offset, size, count] = [Number(elf.readBigUInt64LE(32)), elf.readUInt16LE(54), elf.readUInt16LE(56)]
  const types = Array.from({ length: count }, (_, index) => elf.readUInt32LE(offset + index * size))
  assert.ok(types.length > 0 && !types.includes(3), types.join())
})

test('the guest agent is built with the oldest Rust that is promised, whatever Rust the machine has', async () => {
  const manifest = await readFile(new URL('../../../../native/guest/Cargo.toml', import.meta.url), 'utf8')
  assert.equal(`${/^rust-version = "(.+)"$/m.exec(manifest)?.[1]}.0`, RUST.version)
  // The standard library's own messages name the sources that it was compiled from.
  const compiledFrom = new Set(
    (await readFile((await guestBuild()).path, 'latin1')).match(/rustc[-/][0-9a-f.]+(?=\/)/g),
  )
  assert.deepEqual([...compiledFrom], [`rustc-${RUST.version}`])
})
