import { IceboxError } from '@icebox/model'
import { z } from 'zod'

/** Where the next page of a list begins. It holds the question too, so that it cannot be used for another one. */
const Page = z.object({
  kind: z.string(),
  /** Absent: of all namespaces. */
  namespace: z.string().optional(),
  labels: z.record(z.string(), z.string()),
  /** The version at the time of the first page. */
  version: z.int().min(0),
  /** The last seen. */
  after: z.object({ namespace: z.string(), name: z.string() }),
})
export type Page = z.infer<typeof Page>

export const encodePage = (page: Page): string => Buffer.from(JSON.stringify(page)).toString('base64url')

const sameLabels = (a: Record<string, string>, b: Record<string, string>): boolean =>
  Object.keys(a).length === Object.keys(b).length && Object.entries(a).every(([key, value]) => b[key] === value)

/** Throws InvalidArgument for a token that is not ours or was given for another list. */
export function decodePage(token: string, question: Pick<Page, 'kind' | 'namespace' | 'labels'>): Page {
  let page: Page
  try {
    page = Page.parse(JSON.parse(Buffer.from(token, 'base64url').toString()))
  } catch (thrown) {
    throw new IceboxError('InvalidArgument', 'continue: not a token of a list', { cause: thrown })
  }
  if (page.kind !== question.kind || page.namespace !== question.namespace || !sameLabels(page.labels, question.labels))
    throw new IceboxError('InvalidArgument', 'continue: the token belongs to another list')
  return page
}
