import { readFile } from 'node:fs/promises'
import { checkAccounts } from './accounts.ts'
import { checkExistence } from './existence.ts'
import { checkFiles } from './files.ts'
import type { Finding } from './finding.ts'
import { lineageOf } from './lineage.ts'
import { checkProcesses } from './processes.ts'
import { type History, parseHistory } from './record.ts'
import { checkRemains } from './remains.ts'
import { checkStates } from './states.ts'

/**
 * Says whether a correct Icebox can have given a history: a list of operations, each with its begin, its end and its outcome.
 *
 * The model. An operation that was acknowledged happened at one moment between its begin and its end. One that was refused never
 * happened. One with an unknown outcome happened at one moment after its begin or never; a pause or resume not later than the end
 * of the first acknowledged pause or resume of the same sandbox that began after its end, as they exclude each other. Then:
 *
 * - existence: a sandbox is there from its making until a delete, in every list once; a create makes one, however often it is sent
 *   with its key, and a fork `count`, with an unknown outcome at most as many; what was refused leaves nothing; what was deleted does
 *   not come back. So with snapshots.
 * - state: it runs from its making on, is paused by a pause and runs again by a resume; nothing else changes it but the end of a
 *   time that it was given, which pauses it, and a use, which resumes what is made to wake by that. It never fails.
 * - files: each is a linearizable register, through pause and resume. What is made of a snapshot or by a fork begins with the
 *   content of one moment between the begin and the end of that, the same for all that are made of it; a write that was under way
 *   then may still come about in each of them. A value that nobody wrote whole is a fault.
 * - process: the process that counts is the template's, in every sandbox, and never goes back.
 * - machine: at a census, when all is quiet, every running sandbox has one container with all that belongs to it, every snapshot
 *   its files, and there is nothing else.
 * - accounts: at a census the last event of each sandbox tells the state that it is in, or that it was deleted, and of each that ran
 *   and was deleted there is one record of what it has used, not more than the time from its making until its delete.
 *
 * Not checked: that two files of one sandbox are of the same moment in a fork, that a list is of one moment, and that a time ends when it should.
 */
export function checkHistory(history: History): Finding[] {
  const lineage = lineageOf(history)
  return [
    ...checkExistence(history, lineage),
    ...checkStates(history, lineage),
    ...checkFiles(history, lineage),
    ...checkProcesses(history, lineage),
    ...checkRemains(history),
    ...checkAccounts(history, lineage),
  ]
}

/** `node check.ts FILE`: prints the findings, a line each. Exit status 0: none; 1: some; 2: the file is no history. */
async function main(file: string | undefined): Promise<number> {
  if (file === undefined) {
    console.error('usage: node check.ts FILE')
    return 2
  }
  try {
    const history = parseHistory(await readFile(file, 'utf8'))
    const findings = checkHistory(history)
    for (const { fault, text } of findings) console.log(`${fault}: ${text}`)
    console.log(`${history.length} operations, ${findings.length} findings`)
    return findings.length === 0 ? 0 : 1
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    return 2
  }
}

if (import.meta.main) process.exitCode = await main(process.argv[2])
