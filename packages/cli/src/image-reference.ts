import { resolve } from 'node:path'

const OF_FILES = ['oci:', 'docker-archive:', 'dir:', 'tar:']

/**
 * An image reference as the server has to get it: paths are those of this process, and the server has another working
 * directory. What follows the path (`:tag`) stays as it is.
 */
export function imageReference(text: string): string {
  const scheme = OF_FILES.find((prefix) => text.startsWith(prefix))
  return scheme === undefined ? text : `${scheme}${resolve(text.slice(scheme.length))}`
}
