import { createHash, randomBytes } from 'node:crypto'
import { DEFAULT_PROJECT } from '@icebox/model'
import { requireBounded, requireRecords } from './bounds.ts'
import type { Context } from './context.ts'
import type { Keys } from './control.ts'
import { slice } from './page.ts'
import { resolveRef } from './records.ts'

/** Characters of a key that may be shown. */
const HINT_LENGTH = 10

const hashOf = (key: string): string => createHash('sha256').update(key).digest('hex')
/** Derived from the hash, so that a key is found without looking at all. Begins with a letter, like other ids. */
const nameOf = (hash: string): string => `k${hash.slice(0, 19)}`

/** `records` are those of the system's namespace; `installationKey` is the one in the data directory. */
export function keyService(
  { admission, records }: Pick<Context, 'admission' | 'records'>,
  installationKey: string,
): Keys {
  const installation = hashOf(installationKey)
  /** By hash. */
  const known = new Map<string, { project: string; revocation: AbortController }>()
  /** Those of keys that were revoked while this runs: a look at the store may have begun before. */
  const revoked = new Set<string>()
  return {
    async authenticate(key) {
      const hash = hashOf(key)
      if (hash === installation) return { project: DEFAULT_PROJECT, installation: true }
      if (!known.has(hash)) {
        const record = await records.find('ApiKey', nameOf(hash))
        if (record?.spec.hash !== `sha256:${hash}` || revoked.has(hash)) return undefined
        if (!known.has(hash)) known.set(hash, { project: record.spec.project, revocation: new AbortController() })
      }
      const owner = known.get(hash)
      return owner && { project: owner.project, installation: false, revoked: owner.revocation.signal }
    },
    async create({ project, label }) {
      requireBounded({ label })
      requireRecords({ admission, records }, 'ApiKey')
      const key = `e2b_${randomBytes(20).toString('hex')}`
      const hash = hashOf(key)
      const record = await records.create('ApiKey', nameOf(hash), {
        spec: { project, label, hash: `sha256:${hash}`, hint: key.slice(0, HINT_LENGTH) },
        status: { state: 'ready', lastTransitionAt: new Date().toISOString() },
      })
      return { key, record }
    },
    list: (page) => records.readSlice('ApiKey', slice(records.of('ApiKey').by('created'), page)),
    async revoke(ref) {
      const record = await resolveRef(records, 'ApiKey', ref, [])
      await records.remove('ApiKey', record.metadata.name)
      const hash = record.spec.hash.slice('sha256:'.length)
      revoked.add(hash)
      known.get(hash)?.revocation.abort()
      known.delete(hash)
      return record
    },
  }
}
