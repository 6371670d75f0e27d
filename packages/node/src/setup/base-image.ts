import { access } from 'node:fs/promises'
import { cacheDirectory } from '../cache.ts'
import { bootstrapFile, bootstrapTar } from '../images/bootstrap.ts'
import { parseReference } from '../images/reference.ts'
import { withLock } from './lock.ts'
import type { Step } from './step.ts'

/** The image that the quickstart, the tests and the benchmarks use: a Debian that an agent can work in. */
export const BASE_IMAGE = 'debian:bookworm+ca-certificates,curl,git,procps,python3,sudo'
/** The template that every server has from its first start: the same Debian, whose commands are run by `user` in /home/user. */
export const BASE_TEMPLATE = {
  name: 'base',
  image: `${BASE_IMAGE}@user`,
  size: { cpu: 2, memoryMiB: 512, diskMiB: 2048 },
} as const

function parts(): { suite: string; packages: string[]; file: string } {
  const reference = parseReference(BASE_IMAGE)
  if (reference.kind !== 'debian') throw new Error(`${BASE_IMAGE} is no Debian bootstrap`)
  const { suite, packages } = reference
  return { suite, packages, file: bootstrapFile(suite, packages, cacheDirectory()) }
}

/** The tar that set-up has made it as. */
export const baseImageFile = (): string => parts().file

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
