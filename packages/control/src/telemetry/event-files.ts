import { appendFile, readdir, readFile, rename, rm, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { ProjectName, WireEvent } from '@icebox/model'

/** The events of each project on disk, as two files of lines: those being written, and those before. */

const PRESENT = '.present.jsonl'
const OLDER = '.older.jsonl'
/** Of all projects together, as an earlier version kept them. */
const SHARED = ['events.1.jsonl', 'events.jsonl']
/** A file that is larger is none that was written here. */
const LARGEST_BYTES = 32 * 2 ** 20

/** One after the other, for one project. */
export type FileStep = { line: string } | 'turn' | 'forget'

export interface StoredEvents {
  older: WireEvent[]
  present: WireEvent[]
}

/** Lines are appended; `turn` makes what was written the older file, in place of the one there; `forget` removes both. */
export async function writeSteps(directory: string, project: string, steps: readonly FileStep[]): Promise<void> {
  const [present, older] = [join(directory, `${project}${PRESENT}`), join(directory, `${project}${OLDER}`)]
  let lines: string[] = []
  const append = async () => {
    if (lines.length > 0) await appendFile(present, lines.join(''), { mode: 0o600 })
    lines = []
  }
  for (const step of steps) {
    if (typeof step === 'object') {
      lines.push(step.line)
      continue
    }
    if (step === 'turn') {
      await append()
      await rename(present, older).catch(async (thrown: unknown) => {
        // Nothing was written since the last turn.
        if (!isMissing(thrown)) throw thrown
        await rm(older, { force: true })
      })
    } else {
      lines = []
      for (const file of [present, older]) await rm(file, { force: true })
    }
  }
  await append()
}

/** All that a directory holds, by project. A last line that a crash cut is removed. */
export async function readStored(directory: string): Promise<Map<string, StoredEvents>> {
  const found = new Map<string, StoredEvents>()
  for (const name of await readdir(directory)) {
    const project = projectOf(name)
    if (project === undefined || found.has(project)) continue
    const own = (event: WireEvent) => event.project === project
    found.set(project, {
      older: (await eventsIn(join(directory, `${project}${OLDER}`))).filter(own),
      present: (await eventsIn(join(directory, `${project}${PRESENT}`))).filter(own),
    })
  }
  return found
}

/** What an earlier version wrote, oldest first; `removeShared` once each project has its own. */
export async function readShared(directory: string): Promise<WireEvent[]> {
  const files = await Promise.all(SHARED.map((name) => eventsIn(join(directory, name))))
  return files.flat()
}
export async function removeShared(directory: string): Promise<void> {
  for (const name of SHARED) await rm(join(directory, name), { force: true })
}

function projectOf(name: string): string | undefined {
  const suffix = [PRESENT, OLDER].find((each) => name.endsWith(each))
  if (suffix === undefined) return undefined
  const project = ProjectName.safeParse(name.slice(0, -suffix.length))
  return project.success ? project.data : undefined
}

async function eventsIn(file: string): Promise<WireEvent[]> {
  const found = await stat(file).catch(() => undefined)
  if (found === undefined || !found.isFile() || found.size > LARGEST_BYTES) return []
  const text = await readFile(file, 'utf8')
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  if (whole.length < text.length) await truncate(file, Buffer.byteLength(whole))
  return whole
    .split('\n')
    .filter((line) => line !== '')
    .flatMap((line) => {
      const parsed = WireEvent.safeParse(parseJson(line))
      return parsed.success ? [parsed.data] : []
    })
}

const isMissing = (thrown: unknown): boolean => thrown instanceof Error && 'code' in thrown && thrown.code === 'ENOENT'

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}
