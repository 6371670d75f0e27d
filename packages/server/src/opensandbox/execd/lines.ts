import { StringDecoder } from 'node:string_decoder'

/** Characters of one line that are held back for its end; longer lines are given in pieces of about that. */
const LONGEST = 1_048_576

/** Pieces that are put together when there are more. */
const PIECES = 4096

/** Bytes of output into lines of text without their ends. */
export class Lines {
  readonly #decoder = new StringDecoder('utf8')
  /** The beginning of a line, in pieces: putting them together for each that comes would cost their square. */
  #rest: string[] = []
  #held = 0

  /** The lines that are complete with these bytes. */
  add(data: Uint8Array): string[] {
    const text = this.#decoder.write(Buffer.from(data.buffer, data.byteOffset, data.byteLength))
    const [first = '', ...lines] = text.split('\n')
    const rest = lines.pop()
    if (rest !== undefined) lines.unshift(this.#take() + first)
    this.#keep(rest ?? first)
    if (this.#held > LONGEST) lines.push(this.#take())
    return lines
  }

  /** What is left, when nothing more comes. */
  end(): string[] {
    const rest = this.#take() + this.#decoder.end()
    return rest === '' ? [] : [rest]
  }

  #keep(text: string): void {
    if (text === '') return
    this.#rest.push(text)
    this.#held += text.length
    if (this.#rest.length > PIECES) this.#rest = [this.#rest.join('')]
  }

  #take(): string {
    const rest = this.#rest.join('')
    this.#rest = []
    this.#held = 0
    return rest
  }
}
