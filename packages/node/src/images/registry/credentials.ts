import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { IceboxError } from '@icebox/model'
import { z } from 'zod'

/** What a registry, or its token server, is shown. */
export type Credentials =
  | { kind: 'password'; user: string; password: string }
  /** An OAuth2 refresh token, to be exchanged at the token server. */
  | { kind: 'identity'; token: string }
  /** Shown to the registry as it is. */
  | { kind: 'bearer'; token: string }

const HELPER_DEADLINE_MS = 30_000
/** Under which docker keeps what belongs to Docker Hub. */
const DOCKER_HUB_KEY = 'https://index.docker.io/v1/'

const DockerConfig = z.object({
  auths: z
    .record(
      z.string(),
      z.object({
        auth: z.string().optional(),
        username: z.string().optional(),
        password: z.string().optional(),
        identitytoken: z.string().optional(),
        registrytoken: z.string().optional(),
      }),
    )
    .optional(),
  credsStore: z.string().optional(),
  credHelpers: z.record(z.string(), z.string()).optional(),
})

const HelperAnswer = z.object({ Username: z.string(), Secret: z.string() })

/** Where `docker login` writes: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`. */
export const dockerConfigFile = (): string =>
  join(process.env.DOCKER_CONFIG || join(homedir(), '.docker'), 'config.json')

/**
 * What the docker config file has for a registry, itself or by a credential helper; undefined: nothing.
 * Throws `RegistryUnreachable` when the file or the helper cannot be used.
 */
export async function findCredentials(registry: string, signal: AbortSignal): Promise<Credentials | undefined> {
  const file = dockerConfigFile()
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && (cause.code === 'ENOENT' || cause.code === 'ENOTDIR'))
      return undefined
    throw new IceboxError('RegistryUnreachable', `the docker config file ${file} cannot be read`, { cause })
  }
  let config: z.infer<typeof DockerConfig>
  try {
    config = DockerConfig.parse(JSON.parse(text))
  } catch (cause) {
    throw new IceboxError('RegistryUnreachable', `the docker config file ${file} is not valid`, { cause })
  }
  const key = registry === 'docker.io' ? DOCKER_HUB_KEY : registry
  const helper = config.credHelpers?.[registry] ?? config.credHelpers?.[key] ?? config.credsStore
  const told = helper === undefined ? undefined : await askHelper(helper, key, signal)
  if (told !== undefined) return told
  const entry = Object.entries(config.auths ?? {}).find(([name]) => sameHost(name, key))?.[1]
  return entry && stored(entry, registry, file)
}

const sameHost = (name: string, key: string): boolean => hostOf(name) === hostOf(key)
const hostOf = (name: string): string => name.replace(/^https?:\/\//, '').replace(/\/.*$/, '')

type Stored = NonNullable<z.infer<typeof DockerConfig>['auths']>[string]

function stored(entry: Stored, registry: string, file: string): Credentials | undefined {
  if (entry.registrytoken) return { kind: 'bearer', token: entry.registrytoken }
  if (entry.identitytoken) return { kind: 'identity', token: entry.identitytoken }
  if (entry.username) return { kind: 'password', user: entry.username, password: entry.password ?? '' }
  if (!entry.auth) return undefined
  const decoded = Buffer.from(entry.auth, 'base64').toString()
  const colon = decoded.indexOf(':')
  if (colon < 1)
    throw new IceboxError('RegistryUnreachable', `what ${file} has for ${registry} is not user and password in base64`)
  return { kind: 'password', user: decoded.slice(0, colon), password: decoded.slice(colon + 1) }
}

/** Runs `docker-credential-<helper> get`. Undefined when it knows nothing of the registry. */
async function askHelper(helper: string, key: string, signal: AbortSignal): Promise<Credentials | undefined> {
  const program = `docker-credential-${helper}`
  const failed = (why: string, cause?: unknown) =>
    new IceboxError('RegistryUnreachable', `the credential helper ${program} of the docker config file ${why}`, {
      cause,
    })
  if (!/^[A-Za-z0-9._-]+$/.test(helper)) throw failed('has an impossible name')
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
  const child = execFile(program, ['get'], { timeout: HELPER_DEADLINE_MS, signal }, (error, stdout, stderr) => {
    if (error === null) resolve(stdout)
    else if (/credentials not found/i.test(`${stdout}${stderr}`)) resolve(undefined)
    else reject(failed(`fails: ${stderr.trim() || stdout.trim() || error.message}`, error))
  })
  // A helper that ends without reading is told apart by its exit status.
  child.stdin?.on('error', () => {})
  child.stdin?.end(key)
  const said = await promise
  signal.throwIfAborted()
  if (said === undefined) return undefined
  let answer: z.infer<typeof HelperAnswer>
  try {
    answer = HelperAnswer.parse(JSON.parse(said))
  } catch {
    // Its words may be a secret.
    throw failed('answers with something else than a user and a secret')
  }
  if (answer.Username === '<token>') return { kind: 'identity', token: answer.Secret }
  return { kind: 'password', user: answer.Username, password: answer.Secret }
}
