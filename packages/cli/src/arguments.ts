import { Refusal } from './failure.ts'

/** Arguments that several commands have. */
export const SANDBOX = { name: 'sandbox', summary: 'Id, name or unique prefix of the id.' } as const
export const SNAPSHOT = { name: 'snapshot', summary: 'Id, name or unique prefix of the id.' } as const
export const TEMPLATE = { name: 'template', summary: 'Name of a template.' } as const
export const COMMAND = { name: 'cmd', summary: 'Program and its arguments; no shell reads them.' } as const
export const IMAGE = { name: 'image', summary: 'Id, unique prefix of it, digest or reference.' } as const
export const REFERENCE = {
  name: 'ref',
  summary:
    'Of a registry (python:3.12), or oci:DIR:TAG, docker-archive:FILE, tar:FILE, dir:DIR, debian:SUITE[+PACKAGE,...][@USER].',
} as const

/** Refuses a program without a name as a shell does: by the status of one that is not there. */
export function checkProgram([program]: readonly string[]): void {
  if (program === '') throw new Refusal('NotFound', 'the name of the program is empty', 'Name a program after --.', 127)
}
