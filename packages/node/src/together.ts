/**
 * `Promise.all` that does not throw before all of it has ended: whoever cleans up after a failure must find everything that was
 * made.
 */
export async function together<const Work extends readonly unknown[]>(
  work: Work,
): Promise<{ -readonly [Part in keyof Work]: Awaited<Work[Part]> }> {
  await Promise.allSettled(work)
  return Promise.all(work)
}
