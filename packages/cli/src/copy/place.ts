export interface Entry {
  name: string
  type: 'file' | 'directory' | 'symlink' | 'other'
  /** Permission bits. */
  mode: number
  size: number
  /** Of a symlink: where it points, as stored. */
  target: string
}

export type Content = Uint8Array | AsyncIterable<Uint8Array>

/** Where files can be copied from and to: this machine, or a sandbox. Paths are its own. */
export interface Place {
  /** What is at the path, undefined when nothing is; a symlink itself. */
  look(path: string): Promise<Entry | undefined>
  /** The same through symlinks at the end of the path, and the path that this led to. */
  follow(path: string): Promise<{ path: string; entry: Entry } | undefined>
  /** What a directory holds. */
  list(path: string): Promise<Entry[]>
  read(path: string): Promise<Content>
  /** Replaces what is there at once, a symlink too. */
  write(path: string, content: Content, mode: number): Promise<void>
  /** One that is there already stays as it is. */
  makeDirectory(path: string, mode: number): Promise<void>
  /** Replaces a file or symlink that is there. */
  symlink(target: string, path: string): Promise<void>
  /** Last, when all that belongs into it is there. Not called for directories that were there before. */
  setMode(path: string, mode: number): Promise<void>
  /** The name under which a path is copied into a directory; undefined for what has none, such as `/`. */
  nameOf(path: string): string | undefined
}
