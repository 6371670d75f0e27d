import { access } from 'node:fs/promises'
import { cacheDirectory } from '../cache.ts'
import { bootstrapFile, bootstrapTar } from '../images/bootstrap.ts'
import { parseReference } from '../images/reference.ts'
import { withLock } from './lock.ts'
import type { Step } from './step.ts'

/** The image that the quickstart, the tests and the benchmarks use: a Debian that an agent can work in. */
export const BASE_IMAGE = 'debian:bookworm+ca-certificates,curl,git,procps,python3,sudo'

function parts(): { suite: string; packages: string[]; file: string } {
  const reference = parseReference(BASE_IMAGE)
  if (reference.kind !== 'debian') throw new Error(`${BASE_IMAGE} is no Debian bootstrap`)
  const { suite, packages } = reference
  return { suite, packages, file: bootstrapFile(suite, packages, cacheDirectory()) }
}

export const baseImageStep: Step = {
  name: 'base image',
  why: `${BASE_IMAGE}, built by mmdebstrap`,
  remedy: 'Check that `apt-get update` works on this machine and that 2 GB of disk are free, then run this again.',
  async isDone() {
    const { file } = parts()
    return access(file).then(
      () => BASE_IMAGE,
      () => undefined,
    )
  },
  async run(say, signal) {
    const { suite, packages, file } = parts()
    const build = () => bootstrapTar(suite, packages, cacheDirectory(), ({ phase }) => say(phase), signal)
    await withLock(`${file}.lock`, build, signal)
    return `built ${BASE_IMAGE}`
  },
}
