import type { IncomingMessage } from 'node:http'
import type { Traffic } from '@icebox/control'
import { DEADLINE } from '../../deadline.ts'
import { signerOf } from './access.ts'

/** A hash: what looks otherwise need not be compared with those of any sandbox. */
const SIGNATURE = /^v1_[A-Za-z0-9+/]{43}$/

/**
 * The sandbox that a signed address of a file is about, when it names none: clients that are told one address for all sandboxes
 * (`E2B_SANDBOX_URL`) sign addresses of that, and only the signature tells which sandbox's token made it. It is found
 * while that sandbox is among those that were made last.
 */
export async function signedFor({ method, url = '' }: IncomingMessage, traffic: Traffic): Promise<string | undefined> {
  const query = new URLSearchParams(url.split(/\?(.*)/s)[1])
  if (!SIGNATURE.test(query.get('signature') ?? '')) return undefined
  const isSignedBy = signerOf(method, query)
  if (isSignedBy === undefined) return undefined
  const found = await traffic.findBy(({ access }) => isSignedBy(access), AbortSignal.timeout(DEADLINE.read))
  return found?.metadata.name
}

/** Whether it could be such a request. */
export const isSignedFile = ({ method, url = '' }: IncomingMessage): boolean =>
  (method === 'GET' || method === 'POST') && /^\/files\?(.*&)?signature=/s.test(url)
