import { Icebox } from '@icebox/sdk'

/** The server that the flags of a command name. */
export const serverOf = (flags: { url: string | undefined; data: string | undefined }): Icebox =>
  new Icebox({ url: flags.url, dataDirectory: flags.data })
