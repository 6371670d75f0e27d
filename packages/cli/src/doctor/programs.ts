import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { isAbsolute } from 'node:path'
import { pipeline } from 'node:stream/promises'
import {
  firstLine,
  GO_TOOLCHAIN,
  guestBuild,
  locate,
  presentGo,
  presentRust,
  type Requirement,
  RUNTIME_REQUIREMENTS,
  RUST,
  runscBuild,
  versionIn,
} from '@icebox/node'
import type { Check } from './diagnosis.ts'

const SET_UP = 'Run `npm run quickstart` in the checkout, or `icebox up`: both build what is missing.'
const NODE_MINIMUM = 26

/** `sha256:<hex>` of a file. */
async function digestOf(path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash, { signal })
  return `sha256:${hash.digest('hex')}`
}

async function distribution(requirement: Requirement, signal: AbortSignal): Promise<Check> {
  const id = isAbsolute(requirement.needs) ? requirement.package : requirement.needs
  const check = { id, group: 'programs', required: true, purpose: requirement.why } as const
  const at = await locate(requirement.needs)
  if (!at) return { ...check, status: 'missing', remedy: `apt-get install ${requirement.package}` }
  const said = requirement.version && (await firstLine(at, requirement.version, signal))
  const version = said && (versionIn(said) ?? said)
  return { ...check, status: 'ok', found: at, ...(version && { version }) }
}

/** What builds what is not built: required only as long as that is missing. */
function builder(
  check: { id: string; purpose: string },
  version: string | undefined,
  remedy: string,
  needed: boolean,
): Check {
  const each = { ...check, group: 'programs', required: needed } as const
  if (version !== undefined) return { ...each, status: 'ok', version }
  return needed
    ? { ...each, status: 'missing', remedy }
    : { ...each, status: 'info', found: 'not needed: what it builds is there' }
}

async function build(
  id: string,
  purpose: string,
  built: { path: string; version: string },
  signal: AbortSignal,
): Promise<Check> {
  const check = { id, group: 'builds', required: true, purpose } as const
  if (!(await locate(built.path))) return { ...check, status: 'missing', remedy: SET_UP }
  return {
    ...check,
    status: 'ok',
    version: built.version,
    found: `${built.path}, ${await digestOf(built.path, signal)}`,
  }
}

/** Node, the distribution's programs, the compilers, and what is built with them. */
export async function checkPrograms(signal: AbortSignal): Promise<Check[]> {
  const [runsc, guest] = [await runscBuild(), await guestBuild()]
  const guestMissing = !(await locate(guest.path))
  const runscMissing = !(await locate(runsc.path))
  const major = Number(process.versions.node.split('.')[0])
  const npm = await firstLine('npm', ['--version'], signal)
  return [
    {
      id: 'node',
      group: 'programs',
      required: true,
      purpose: 'runs Icebox',
      version: process.versions.node,
      found: process.execPath,
      ...(major >= NODE_MINIMUM
        ? { status: 'ok' }
        : {
            status: 'missing',
            remedy: 'Start Icebox by ./icebox or npx icebox: they use the Node that npm installed.',
          }),
    },
    {
      id: 'npm',
      group: 'programs',
      required: false,
      purpose: 'installs Icebox’s packages',
      ...(npm
        ? { status: 'ok', version: npm }
        : { status: 'warning', remedy: 'Install npm (apt-get install npm) before you update Icebox.' }),
    },
    ...(await Promise.all(RUNTIME_REQUIREMENTS.map((requirement) => distribution(requirement, signal)))),
    builder(
      { id: 'rust', purpose: 'builds the guest agent' },
      await presentRust(),
      `Rust ${RUST.version} is fetched by set-up. ${SET_UP}`,
      guestMissing,
    ),
    builder(
      { id: 'go', purpose: 'builds runsc' },
      (await presentGo(signal)) && GO_TOOLCHAIN.version,
      `Go ${GO_TOOLCHAIN.version} is fetched by set-up. ${SET_UP}`,
      runscMissing,
    ),
    await build('runsc', 'runs sandboxes (gVisor)', runsc, signal),
    await build('guest', 'is process 1 of every sandbox', guest, signal),
  ]
}
