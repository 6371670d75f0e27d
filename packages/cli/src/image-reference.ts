import { resolve } from 'node:path'

const OF_FILES = ['oci:', 'docker-archive:', 'dir:', 'tar:']

/** An image reference with absolute paths. What follows the path (`:tag`) stays as it is. */
export function imageReference(text: string): string {
  const scheme = OF_FILES.find((prefix) => text.startsWith(prefix))
  return scheme === undefined ? text : `${scheme}${resolve(text.slice(scheme.length))}`
}

/** What the server knows an image by that was made of a reference here: files were sent to it. */
export function imageName(text: string): string {
  const reference = imageReference(text)
  return OF_FILES.some((prefix) => reference.startsWith(prefix)) ? `upload:${reference}` : reference
}
