import assert from 'node:assert/strict'
import { it, type TestContext } from 'node:test'
import { type ErrorCode, isError, type ResourceOf, type SpecOf, type StatusOf } from '@icebox/model'
import type { MetadataChange, ResourceStore } from '../store.ts'

/** A store and two namespaces in it that are empty and nobody else's. */
export interface StoreUnderTest {
  store: ResourceStore
  namespace: string
  other: string
}
/** Gives each test a store of its own. */
export type OpenStore = (t: TestContext) => Promise<StoreUnderTest>

export type Template = ResourceOf['Template']

export const SPEC: SpecOf<'Template'> = {
  image: 'debian:bookworm',
  size: { cpu: 1.5, memoryMiB: 512, diskMiB: 1024 },
  env: { LANG: 'C.UTF-8', EMPTY: '', GREETING: 'grüß "dich" \n 🧊' },
  startCommand: ['/bin/sh', '-c', 'true'],
  hidden: false,
}
export const STATUS: StatusOf<'Template'> = { state: 'creating', lastTransitionAt: '2026-01-02T03:04:05.678Z' }
export const READY: StatusOf<'Template'> = { ...STATUS, state: 'ready', snapshot: 'abc', bootMs: 12.5 }

/** Accepts an error with the code. */
export const code = (expected: ErrorCode) => (thrown: unknown) => {
  assert.ok(isError(thrown, expected), `expected ${expected}, got ${String(thrown)}`)
  return true
}

export const byName = (a: Template, b: Template): number => a.metadata.name.localeCompare(b.metadata.name)

/** Then what a test waits for never comes. */
export const TIMEOUT_MS = 60_000

/** Registers one test, with a store of its own. */
export const testOn = (
  open: OpenStore,
  title: string,
  body: (under: StoreUnderTest, signal: AbortSignal) => Promise<void>,
): void => void it(title, { timeout: TIMEOUT_MS }, async (t) => body(await open(t), t.signal))

export const put = (
  { store, namespace }: StoreUnderTest,
  signal: AbortSignal,
  name = 'one',
  metadata: MetadataChange = {},
): Promise<Template> => store.create('Template', { namespace, name }, { spec: SPEC, status: STATUS, metadata }, signal)
