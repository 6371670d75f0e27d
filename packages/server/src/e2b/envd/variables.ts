import type { EnvdSandbox } from './call.ts'

/** What programs know by that they run in a sandbox of E2B, and in which, unless the sandbox was given others of these names. */
export function variablesOf({ id, template, env }: EnvdSandbox): Record<string, string> {
  const own = { E2B_SANDBOX: 'true', E2B_SANDBOX_ID: id, E2B_TEMPLATE_ID: template }
  return Object.fromEntries(Object.entries(own).filter(([name]) => !Object.hasOwn(env, name)))
}

/** The environment that a process was given, without these. */
export function givenOf(sandbox: EnvdSandbox, env: Readonly<Record<string, string>>): Record<string, string> {
  const own = variablesOf(sandbox)
  return Object.fromEntries(Object.entries(env).filter(([name, value]) => own[name] !== value))
}
