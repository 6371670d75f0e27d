/** Arguments that several commands have. */
export const SANDBOX = { name: 'sandbox', summary: 'Id, name or unique prefix of the id.' } as const
export const SNAPSHOT = { name: 'snapshot', summary: 'Id, name or unique prefix of the id.' } as const
export const TEMPLATE = { name: 'template', summary: 'Name of a template.' } as const
export const COMMAND = { name: 'cmd', summary: 'Program and its arguments; no shell reads them.' } as const
export const IMAGE = { name: 'image', summary: 'Id, unique prefix of it, digest or reference.' } as const
export const REFERENCE = {
  name: 'ref',
  summary:
    'Of a registry (python:3.12), or oci:DIR:TAG, docker-archive:FILE, tar:FILE, dir:DIR, debian:SUITE[+PACKAGE,...].',
} as const
