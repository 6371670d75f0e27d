import { readFile } from 'node:fs/promises'

/** A fenced block of a page. */
export interface Block {
  /** `FILE:LINE` of its first line. */
  at: string
  /** What stands behind the opening fence, such as `ts`. */
  info: string
  text: string
}

/** The fenced blocks of a page of Markdown, in order. Throws for one that does not end. */
export async function blocksOf(root: string, file: string): Promise<Block[]> {
  const blocks: Block[] = []
  let open: { info: string; line: number; text: string[] } | undefined
  for (const [index, line] of (await readFile(`${root}/${file}`, 'utf8')).split('\n').entries()) {
    const fence = /^```(.*)$/.exec(line)
    if (fence === null) open?.text.push(line)
    else if (open === undefined) open = { info: fence[1] ?? '', line: index + 2, text: [] }
    else {
      blocks.push({ at: `${file}:${open.line}`, info: open.info, text: open.text.join('\n') })
      open = undefined
    }
  }
  if (open !== undefined) throw new Error(`${file}:${open.line}: a block without end`)
  return blocks
}
