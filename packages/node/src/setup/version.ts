/** The first dotted number in a text, such as `1.63.0` in `rustc 1.63.0 (4b91a6ea7 2022-08-08)`. */
export const versionIn = (text: string): string | undefined => /\d+(?:\.\d+)+/.exec(text)?.[0]

/** Whether a dotted number is the same as or newer than another; missing parts count as 0. */
export function atLeast(version: string, minimum: string): boolean {
  const parts = version.split('.').map(Number)
  for (const [index, least] of minimum.split('.').map(Number).entries()) {
    const part = parts[index] ?? 0
    if (part !== least) return part > least
  }
  return true
}
