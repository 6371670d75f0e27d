import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { isIceboxError } from '@icebox/sdk'
import { Refusal } from './failure.ts'

const OF_FILES = ['oci:', 'docker-archive:', 'dir:', 'tar:']

/**
 * An image reference as the server has to get it: paths are those of this process, and the server has another working
 * directory. What follows the path (`:tag`) stays as it is.
 */
export function imageReference(text: string): string {
  const scheme = OF_FILES.find((prefix) => text.startsWith(prefix))
  return scheme === undefined ? text : `${scheme}${resolve(text.slice(scheme.length))}`
}

/** Work with an image that may have to be made. When a path that it is made of is not there, that is what is said. */
export async function withImage<T>(reference: string, work: Promise<T>): Promise<T> {
  return work.catch((thrown: unknown) => {
    const scheme = OF_FILES.find((prefix) => reference.startsWith(prefix))
    if (scheme === undefined || !isIceboxError(thrown, 'NotFound')) throw thrown
    const whole = reference.slice(scheme.length)
    // A tag may follow; the path may also have a colon of its own.
    const path = whole.replace(/:[^/]*$/, '')
    const there = existsSync(whole) || existsSync(path)
    const message = there ? thrown.message : `there is no ${path}`
    throw new Refusal(thrown.code, message, `Check the path${there ? ' and the tag' : ''} of ${reference}.`)
  })
}
