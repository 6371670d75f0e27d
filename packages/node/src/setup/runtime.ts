import { ensureGo, GO_TOOLCHAIN, presentGo } from './go.ts'
import { locate, packagesStep, RUNTIME_REQUIREMENTS } from './packages.ts'
import { runscBuild, runscStep } from './runsc.ts'
import type { Step } from './step.ts'

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

/** All that running sandboxes on this machine needs, in order. Quick when it is there. */
export const runtimeSteps = (): Step[] => [
  packagesStep('packages', 'what images and sandboxes are made with', RUNTIME_REQUIREMENTS),
  goStep,
  runscStep,
]
