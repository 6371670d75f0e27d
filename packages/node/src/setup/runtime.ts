import { ensureGo, GO_TOOLCHAIN, presentGo } from './go.ts'
import { ensureGuest, guestBuild, guestStep } from './guest.ts'
import { locate, packagesStep, RUNTIME_REQUIREMENTS } from './packages.ts'
import { ensureRunsc, runscBuild, runscStep } from './runsc.ts'
import { rustStep } from './rust.ts'
import { type Report, runSteps, type Step } from './step.ts'

const goStep: Step = {
  name: 'Go',
  why: 'builds runsc',
  remedy: `Install Go ${GO_TOOLCHAIN.version}, or any Go and a Go module proxy that can be reached (\`go env GOPROXY\`), then run this again.`,
  async isDone(signal) {
    if (await locate((await runscBuild()).path)) return 'not needed, runsc is built'
    return (await presentGo(signal)) && GO_TOOLCHAIN.version
  },
  async run(say, signal) {
    await ensureGo(say, signal)
    return `fetched Go ${GO_TOOLCHAIN.version}`
  },
}

/** Rust, unless the guest agent is there already. */
const rustForGuestStep: Step = {
  ...rustStep,
  async isDone(signal) {
    if (await locate((await guestBuild()).path)) return 'not needed, the guest agent is built'
    return await rustStep.isDone(signal)
  },
}

/** All that running sandboxes on this machine needs, in order. Quick when it is there. With `rustStep`, Rust in any case. */
export const runtimeSteps = (rust: Step = rustForGuestStep): Step[] => [
  packagesStep('packages', 'what images and sandboxes are made with', RUNTIME_REQUIREMENTS),
  goStep,
  runscStep,
  rust,
  guestStep,
]

/**
 * Makes sure that sandboxes can run here and gives the programs that run them. What is missing is installed and built, with a
 * report; when nothing is, nothing is reported. Throws `Unavailable` with what to do.
 */
export async function ensureRuntime(report: Report, signal: AbortSignal): Promise<{ runsc: string; guest: string }> {
  const missing: Step[] = []
  for (const step of runtimeSteps()) if ((await step.isDone(signal)) === undefined) missing.push(step)
  await runSteps(missing, report, signal)
  return { runsc: await ensureRunsc(signal), guest: await ensureGuest(signal) }
}
