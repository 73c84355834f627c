import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import type { SecureContext } from 'node:tls'

export const DAY: number = 86_400_000

/** A certificate with its key, and what TLS makes of them. */
export interface Identity {
  readonly chain: readonly X509Certificate[]
  readonly context: SecureContext
}

/** Takes PEM texts apart and together. `fail` gets a plain line, and throws. */
export async function identityOf(
  certText: string,
  keyText: string,
  fail: (message: string, cause?: unknown) => never,
): Promise<Identity> {
  const chain = certificatesIn(certText) ?? fail('a certificate is damaged')
  const [leaf] = chain
  if (!leaf) return fail('there is no certificate in PEM')
  const key = privateKeyIn(keyText) ?? fail('there is no private key in PEM that can be read (one with a password?)')
  if (!leaf.checkPrivateKey(key)) fail('the key does not belong to the (first) certificate')
  const { createSecureContext } = await import('node:tls')
  try {
    const pem = chain.map((certificate) => certificate.toString()).join('')
    return { chain, context: createSecureContext({ cert: pem, key: keyText, minVersion: 'TLSv1.2' }) }
  } catch (error) {
    return fail(`TLS cannot use the certificate: ${error instanceof Error ? error.message : String(error)}`)
  }
}

export function certificatesIn(text: string): X509Certificate[] | undefined {
  try {
    const blocks = text.match(/-----BEGIN (?:TRUSTED )?CERTIFICATE-----[^-]*-----END (?:TRUSTED )?CERTIFICATE-----/g)
    return (blocks ?? []).map((block) => new X509Certificate(block))
  } catch {
    return undefined
  }
}

export function privateKeyIn(text: string): KeyObject | undefined {
  try {
    return createPrivateKey(text)
  } catch {
    return undefined
  }
}

export function daysLeft(certificate: X509Certificate): number {
  return (Date.parse(certificate.validTo) - Date.now()) / DAY
}
