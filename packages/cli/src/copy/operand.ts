export interface Operand {
  /** Id, name or prefix; undefined: here. */
  sandbox: string | undefined
  path: string
}

/** `SANDBOX:PATH`, or a path here. One with a colon in its first part is written `./a:b` or with its full path. */
export function operand(text: string): Operand {
  const [, sandbox, path] = /^([a-z0-9][a-z0-9._-]*):(.*)$/s.exec(text) ?? []
  return sandbox === undefined || path === undefined
    ? { sandbox: undefined, path: text }
    : { sandbox, path: path || '.' }
}
