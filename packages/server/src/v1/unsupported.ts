import { IceboxError } from '@icebox/model'

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const isEmpty = (value: unknown): boolean =>
  value === undefined ||
  value === null ||
  value === false ||
  (Array.isArray(value) && value.length === 0) ||
  (isObject(value) && Object.keys(value).length === 0)

/** No egress at all is what every sandbox has: a policy that asks for that, and no more, is fulfilled. */
const asksForEgress = (policy: unknown): boolean => {
  if (!isObject(policy)) return !isEmpty(policy)
  const { defaultAction = 'deny', egress = [] } = policy
  const rules: unknown[] = Array.isArray(egress) ? egress : [egress]
  return (
    !isEmpty(policy) && (defaultAction !== 'deny' || rules.some((rule) => !isObject(rule) || rule.action !== 'deny'))
  )
}

const asksForOtherPlatform = (platform: unknown): boolean =>
  !isEmpty(platform) && !(isObject(platform) && platform.os === 'linux' && platform.arch === 'amd64')

/** Where a create can ask for what Icebox does not do, how one sees that it does, and why not. */
const UNSUPPORTED: { field: string; asks: (body: Record<string, unknown>) => boolean; why: string }[] = [
  { field: 'volumes', asks: ({ volumes }) => !isEmpty(volumes), why: 'volumes are not supported' },
  {
    field: 'networkPolicy',
    asks: ({ networkPolicy }) => asksForEgress(networkPolicy),
    why: 'sandboxes have no network, so that nothing can be allowed',
  },
  {
    field: 'platform',
    asks: ({ platform }) => asksForOtherPlatform(platform),
    why: 'sandboxes run linux/amd64 only',
  },
  {
    field: 'credentialProxy',
    asks: ({ credentialProxy: proxy }) => !isEmpty(proxy) && !(isObject(proxy) && isEmpty(proxy.enabled)),
    why: 'there is no credential proxy',
  },
  {
    field: 'lifecycle',
    asks: ({ lifecycle }) => !isEmpty(lifecycle),
    why: 'there are no lifecycle hooks: start what is to run with the entrypoint',
  },
  {
    field: 'image.auth',
    asks: ({ image }) => isObject(image) && !isEmpty(image.auth),
    why: 'credentials for a registry are taken from the docker config file of the server',
  },
  {
    field: 'extensions',
    asks: ({ extensions }) =>
      isObject(extensions) &&
      Object.keys(extensions).some((key) => key === 'poolRef' || key.startsWith('access.renew.')),
    why: 'there are no pools, and expiration is not renewed by access',
  },
]

/**
 * Unknown keys of a body are ignored, because clients of the shape that this API has send their own. But what would make
 * the sandbox another one than was asked for is refused: throws `InvalidArgument` with the field and the reason.
 */
export function refuseUnsupported(body: unknown): void {
  if (!isObject(body)) return
  const refused = UNSUPPORTED.filter(({ asks }) => asks(body))
  if (refused.length === 0) return
  throw new IceboxError('InvalidArgument', refused.map(({ field, why }) => `body.${field}: ${why}`).join('; '), {
    details: { field: `body.${refused[0]?.field}` },
    remedy: 'Leave the named field out.',
  })
}
