import { X509Certificate } from 'node:crypto'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import { ProxyError } from '../core/index.ts'

/** Certificates of one chain that are looked at. */
const LONGEST_CHAIN = 10
/** RFC 5280 section 4.2.1.12: id-kp-serverAuth, anyExtendedKeyUsage. */
const SERVER_PURPOSES = ['1.3.6.1.5.5.7.3.1', '2.5.29.37.0']

/**
 * How the certificate of a server is checked. There is no way to check nothing.
 *
 * - `system`: the CAs that this machine trusts (Node's own and, where it can read them, the system's), and the name
 * - `ca`: these CAs and no other, and the name
 * - `pin`: the SHA-256 of a certificate: the server's own, or that of a CA of its own, which has signed it. The name
 *   need not fit then, unless this machine trusts the CA anyway: such a CA signs for others, too.
 */
export type Verify =
  | { readonly by: 'system' }
  | { readonly by: 'ca'; readonly pem: string }
  | { readonly by: 'pin'; readonly sha256: string }

export type VerifyByCa = Extract<Verify, { readonly by: 'ca' }>
export type VerifyByPin = Extract<Verify, { readonly by: 'pin' }>

/** What people can do about a certificate, where they say how it is checked. */
export interface Advice {
  /** Where the new fingerprint stands. */
  readonly pin: string
  /** How a CA is given. */
  readonly ca: string
  /** What helps if nobody has signed it whom this machine trusts. */
  readonly untrusted: string
}

const OF_A_SERVER: Advice = {
  pin: ' ("symport uuid" there shows it)',
  ca: 'given with --ca',
  untrusted: 'pin it with --pin, or give its CA with --ca',
}

/**
 * Reads `sha256:HEX`, with or without colons between the bytes, in upper or lower case.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function parsePin(text: string): VerifyByPin {
  const hex = /^sha256:((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})$/i.exec(text.trim())?.[1]
  if (hex === undefined) {
    throw new ProxyError(
      'PROXY_ERR_USAGE',
      'a pin is sha256: and 64 hexadecimal digits, as "symport uuid" on the server prints it',
    )
  }
  return { by: 'pin', sha256: hex.replaceAll(':', '').toLowerCase() }
}

/**
 * The CAs in a text of PEM blocks.
 *
 * @throws ProxyError PROXY_ERR_USAGE if there is none, or one that cannot be read
 */
export function parseCa(pem: string): VerifyByCa {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? []
  try {
    for (const block of blocks) new X509Certificate(block)
  } catch (cause) {
    throw new ProxyError('PROXY_ERR_USAGE', 'a certificate in it is damaged', { cause })
  }
  if (blocks.length === 0) throw new ProxyError('PROXY_ERR_USAGE', 'there is no certificate in it (PEM is expected)')
  return { by: 'ca', pem: blocks.join('\n') }
}

/** The SHA-256 of a certificate's DER, as it stands behind `--pin`. */
export function fingerprintOf(certificate: X509Certificate): string {
  return `sha256:${certificate.fingerprint256.replaceAll(':', '').toLowerCase()}`
}

/** What `tls.connect` is told. The environment (NODE_TLS_REJECT_UNAUTHORIZED) has no say in it. */
export async function verifySettings(verify: Verify): Promise<ConnectionOptions> {
  switch (verify.by) {
    case 'system': {
      const ca = await systemCertificates()
      return { rejectUnauthorized: true, ...(ca ? { ca } : {}) }
    }
    case 'ca':
      return { rejectUnauthorized: true, ca: verify.pem }
    case 'pin':
      // The pin is checked once the other side has proven that it holds the key; see checkPin.
      return { rejectUnauthorized: false }
  }
}

/** Node's own list and the system's, where Node.js tells it (22.15 and later); undefined: Node's own. */
async function systemCertificates(): Promise<string[] | undefined> {
  const tls: { connect: unknown; getCACertificates?: (type: 'default' | 'system') => string[] } = await import(
    'node:tls'
  )
  if (typeof tls.getCACertificates !== 'function') return undefined
  return [...new Set([...tls.getCACertificates('default'), ...tls.getCACertificates('system')])]
}

/**
 * Whether a connection whose TLS handshake is over leads to whoever was pinned.
 *
 * @throws ProxyError PROXY_ERR_DIAL_FAILED if not
 */
export function checkPin(socket: TLSSocket, sha256: string, name: string, advice: Advice = OF_A_SERVER): void {
  const chain = presented(socket)
  const [leaf] = chain
  if (!leaf) throw rejected(`${name} shows no certificate`)
  const at = chain.findIndex((certificate) => fingerprintOf(certificate) === `sha256:${sha256}`)
  if (at < 0) {
    throw rejected(
      `no certificate of ${name} fits the pin: it is another server, or has a new certificate${advice.pin}`,
    )
  }
  for (const certificate of chain.slice(0, at + 1)) checkDates(certificate, name)
  if (at === 0) return
  for (const [i, issuer] of chain.slice(1, at + 1).entries()) {
    const signed = chain[i]
    if (!signed || !issuer.ca || !signed.checkIssued(issuer) || !signed.verify(issuer.publicKey)) {
      throw rejected(`${name} shows the certificate that is pinned, but it has not signed the server's own`)
    }
  }
  const purposes = leaf.keyUsage
  if (purposes && !purposes.some((purpose) => SERVER_PURPOSES.includes(purpose))) {
    throw rejected(`the certificate of ${name} is not meant for servers`)
  }
  // All is well but the name, for CAs that this machine trusts: they sign for strangers.
  if (errorCode(socket.authorizationError) === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    throw rejected(
      `the certificate of ${name} is for other names${namesIn(leaf.subjectAltName)}, and the pinned CA is a public one`,
    )
  }
}

function presented(socket: TLSSocket): X509Certificate[] {
  const chain: X509Certificate[] = []
  let next = socket.getPeerCertificate(true)
  while (next?.raw && chain.length < LONGEST_CHAIN) {
    chain.push(new X509Certificate(next.raw))
    // A self-signed one is its own issuer.
    if (next.issuerCertificate === next) break
    next = next.issuerCertificate
  }
  return chain
}

function checkDates(certificate: X509Certificate, name: string): void {
  if (Date.parse(certificate.validTo) < Date.now()) throw rejected(expired(name))
  if (Date.parse(certificate.validFrom) > Date.now()) throw rejected(notYet(name))
}

/** In plain words why TLS failed; undefined if that is not about TLS. `name` is the server's, for people. */
export function tlsError(
  error: unknown,
  verify: Verify,
  name: string,
  advice: Advice = OF_A_SERVER,
): ProxyError | undefined {
  if (error instanceof ProxyError) return error
  const code = errorCode(error)
  switch (code) {
    case 'CERT_HAS_EXPIRED':
      return rejected(expired(name), error)
    case 'CERT_NOT_YET_VALID':
      return rejected(notYet(name), error)
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return rejected(`the certificate of ${name} is for other names${namesIn(certificateOf(error))}`, error)
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'CERT_SIGNATURE_FAILURE':
    case 'CERT_UNTRUSTED':
    case 'INVALID_CA':
      return rejected(
        verify.by === 'ca'
          ? `the CA ${advice.ca} has not signed the certificate of ${name}`
          : `nobody whom this machine trusts has signed the certificate of ${name}: ${advice.untrusted}`,
        error,
      )
    case 'CERT_REVOKED':
      return rejected(`the certificate of ${name} has been revoked`, error)
    case 'ECONNRESET':
      return new ProxyError('PROXY_ERR_DIAL_FAILED', `${name} closed the connection during the TLS handshake`, {
        cause: error,
        retryable: true,
      })
  }
  if (code === 'EPROTO' || code.startsWith('ERR_SSL_')) return rejected(spoken(code, name), error)
  // OpenSSL has many more reasons not to like a certificate; its text stands beside ours.
  const text = error instanceof Error ? error.message : String(error)
  return /certificate/i.test(text) ? rejected(`the certificate of ${name} is no good: ${text}`, error) : undefined
}

function spoken(code: string, name: string): string {
  if (code === 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL') return `${name} speaks TLS, but not symport (ALPN)`
  if (/PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL/.test(code)) return `${name} speaks no TLS of version 1.2 or later`
  if (/UNRECOGNIZED_NAME/.test(code)) return `${name} has no certificate for that name`
  return `${name} does not speak TLS as it should (${code})`
}

const expired = (name: string): string => `the certificate of ${name} has expired`

const notYet = (name: string): string => `the certificate of ${name} is not valid yet: is this machine's clock right?`

function namesIn(subjectAltName: string | undefined): string {
  const names = subjectAltName?.replace(/[^\x20-\x7e]/g, '?').slice(0, 200)
  return names === undefined ? '' : ` (${names})`
}

/** Node.js leaves the certificate in the error, and what it is for in that. */
function certificateOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('cert' in error)) return undefined
  const { cert } = error
  return typeof cert === 'object' && cert && 'subjectaltname' in cert ? String(cert.subjectaltname) : undefined
}

function errorCode(error: unknown): string {
  if (typeof error === 'string') return error
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : ''
}

function rejected(message: string, cause?: unknown): ProxyError {
  return new ProxyError('PROXY_ERR_DIAL_FAILED', message, cause === undefined ? {} : { cause })
}
