import { readFile } from 'node:fs/promises'
import { createSecureContext } from 'node:tls'
import { IceboxError } from '@icebox/model'

/** Files with a certificate (and its chain) and its private key, as PEM. */
export interface CertificateFiles {
  cert: string
  key: string
}
export interface Certificate {
  cert: Buffer
  key: Buffer
}

/** Throws `InvalidArgument` when a file cannot be read, is no PEM, or the two do not belong together. */
export async function readCertificate(files: CertificateFiles): Promise<Certificate> {
  try {
    const [cert, key] = await Promise.all([readFile(files.cert), readFile(files.key)])
    createSecureContext({ cert, key })
    return { cert, key }
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown)
    throw new IceboxError(
      'InvalidArgument',
      `the certificate ${files.cert} with the key ${files.key} cannot be used: ${reason}`,
      { cause: thrown, remedy: 'Give a PEM certificate with its chain, and the PEM private key that belongs to it.' },
    )
  }
}
