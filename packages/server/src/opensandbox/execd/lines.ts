import { StringDecoder } from 'node:string_decoder'

/** Characters of one line that are held back for its end; longer lines are given in pieces of about that. */
const LONGEST = 1_048_576

/** Bytes of output into lines of text without their ends. */
export class Lines {
  readonly #decoder = new StringDecoder('utf8')
  #rest = ''

  /** The lines that are complete with these bytes. */
  add(data: Uint8Array): string[] {
    const text = this.#rest + this.#decoder.write(Buffer.from(data.buffer, data.byteOffset, data.byteLength))
    const lines = text.split('\n')
    this.#rest = lines.pop() ?? ''
    if (this.#rest.length > LONGEST) {
      lines.push(this.#rest)
      this.#rest = ''
    }
    return lines
  }

  /** What is left, when nothing more comes. */
  end(): string[] {
    const rest = this.#rest + this.#decoder.end()
    this.#rest = ''
    return rest === '' ? [] : [rest]
  }
}
