import { join } from 'node:path'
import { npmPackages, pythonPackages } from '@icebox/node'

/** Other people's clients and tools that tests/compat runs against Icebox, at versions that the files there pin. */
const PINS = join(import.meta.dirname, '../tests/compat/clients')

export const npmClients = npmPackages('npm clients', 'clients of others, to run against Icebox', PINS)
export const pythonClients = pythonPackages(
  'Python clients',
  'clients of others, to run against Icebox',
  join(PINS, 'clients.txt'),
)
export const schemathesis = pythonPackages(
  'schemathesis',
  'checks the API against its OpenAPI document',
  join(PINS, 'schemathesis.txt'),
)

/** The oldest Node that starts Icebox, for tests/fresh-machine. */
export const node20 = npmPackages(
  'Node 20',
  'starts Icebox on a fresh machine',
  join(import.meta.dirname, '../tests/fresh-machine/node-20'),
)

export const clientSteps = [npmClients, pythonClients, schemathesis, node20].map(({ step }) => step)
