import type { ImageConfig } from '@icebox/model'
import type { UnpackJob } from './unpack.ts'

/** An image that was found and can be unpacked. */
export interface ImageSource {
  /** Known before anything is unpacked: of the platform's manifest, or a docker archive's image id. Absent: of the tree. */
  digest?: string
  config: ImageConfig
  /** The same as long as nothing has changed where it comes from; only for files of this machine without a digest. */
  origin?: string
  /** To be unpacked in this order. */
  parts: SourcePart[]
}

export interface SourcePart {
  /** Bytes as stored or transferred, 0 when unknown. */
  storedBytes: number
  /** Whether `fetch` writes so many bytes into the directory. */
  downloaded: boolean
  /** Brings it to this machine, into a new file in the directory. Calls with the bytes got so far. */
  fetch(directory: string, onBytes: (bytes: number) => void, signal: AbortSignal): Promise<UnpackJob>
}

/** A part that is on this machine already. */
export const localPart = (storedBytes: number, job: UnpackJob): SourcePart => ({
  storedBytes,
  downloaded: false,
  fetch: async () => job,
})
