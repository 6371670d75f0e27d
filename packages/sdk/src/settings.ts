import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

export interface ConnectionOptions {
  /** Base address of the server, such as `http://127.0.0.1:7070`. */
  url?: string | undefined
  apiKey?: string | undefined
  /** The server's data directory, where it runs on this machine: its `server.json` tells the url and its `key` the API key. */
  dataDirectory?: string | undefined
}

export const DEFAULT_URL = 'http://127.0.0.1:7070'

/** ICEBOX_DATA, else `/var/lib/icebox` for root and `$XDG_DATA_HOME/icebox` for others: where a server of this user keeps its data. */
function defaultDataDirectory(environment: Record<string, string | undefined>): string {
  if (environment.ICEBOX_DATA) return environment.ICEBOX_DATA
  if (process.geteuid?.() === 0) return '/var/lib/icebox'
  return join(environment.XDG_DATA_HOME || join(homedir(), '.local', 'share'), 'icebox')
}

/** The file's text, or undefined when it cannot be read: the server then says that a key is missing, or nobody answers. */
function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

function urlOf(dataDirectory: string): string | undefined {
  const text = readIfThere(join(dataDirectory, 'server.json'))
  if (text === undefined) return undefined
  try {
    const parsed: unknown = JSON.parse(text)
    return typeof parsed === 'object' && parsed !== null && 'url' in parsed && typeof parsed.url === 'string'
      ? parsed.url
      : undefined
  } catch {
    return undefined
  }
}

/**
 * Where the server is and with which key to speak to it. What the caller gave wins over the environment (`ICEBOX_URL`,
 * `ICEBOX_API_KEY`, `ICEBOX_DATA`), that over the files of the data directory, those over the defaults.
 */
export function connectionSettings(
  options: ConnectionOptions = {},
  environment: Record<string, string | undefined> = process.env,
): { url: string; apiKey: string | undefined } {
  const given = options.dataDirectory
  const dataDirectory = given ?? defaultDataDirectory(environment)
  return {
    url:
      options.url ??
      (given === undefined ? undefined : urlOf(given)) ??
      (environment.ICEBOX_URL || undefined) ??
      urlOf(dataDirectory) ??
      DEFAULT_URL,
    apiKey: options.apiKey ?? (environment.ICEBOX_API_KEY || readIfThere(join(dataDirectory, 'key'))?.trim()),
  }
}
