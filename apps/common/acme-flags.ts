import { ProxyError } from '../../lib/core/errors.ts'
import { nearest } from '../../lib/domains/nearest.ts'
import { shown } from '../../lib/domains/text.ts'
import type { Verify } from '../../lib/sockets/verify.ts'
import { notEmpty, type StringFlag } from './flags.ts'
import { readCa } from './transport-flags.ts'

/** The CAs that have a word of their own. */
const DIRECTORIES: ReadonlyMap<string, string> = new Map([
  ['letsencrypt', 'https://acme-v02.api.letsencrypt.org/directory'],
  ['letsencrypt-staging', 'https://acme-staging-v02.api.letsencrypt.org/directory'],
])

/** Certificates of a public CA. */
export const ACME_FLAGS: readonly [StringFlag<'acme-email'>, StringFlag<'acme-directory'>, StringFlag<'acme-ca'>] = [
  {
    name: 'acme-email',
    kind: 'string',
    value: 'ADDR',
    help: "Get a certificate for --domain, and for each name of the web port when somebody first asks for it, from Let's Encrypt, whose terms this agrees to.",
  },
  {
    name: 'acme-directory',
    kind: 'string',
    value: 'URL',
    help: 'Another CA than letsencrypt: letsencrypt-staging to try it out, or the https:// URL of an ACME directory.',
  },
  {
    name: 'acme-ca',
    kind: 'string',
    value: 'FILE',
    help: 'The CAs to believe when that directory is asked (PEM), instead of those that this machine trusts.',
  },
]

export interface AcmeSettings {
  readonly email: string
  readonly directory: string
  readonly verify: Verify
}

/**
 * Undefined if there is to be none.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export async function parseAcmeFlags(values: {
  'acme-email': string | undefined
  'acme-directory': string | undefined
  'acme-ca': string | undefined
}): Promise<AcmeSettings | undefined> {
  const email = notEmpty(values['acme-email'], 'acme-email')
  const directory = notEmpty(values['acme-directory'], 'acme-directory')
  const ca = notEmpty(values['acme-ca'], 'acme-ca')
  if (email === undefined) {
    const without = directory !== undefined ? 'acme-directory' : ca !== undefined ? 'acme-ca' : undefined
    if (without !== undefined) throw usage(`--${without} says nothing without --acme-email`)
    return undefined
  }
  return {
    email: parseAcmeEmail(email),
    directory: parseAcmeDirectory(directory ?? 'letsencrypt'),
    verify: ca === undefined ? { by: 'system' } : await readCa(ca, 'acme-ca'),
  }
}

/** @throws ProxyError PROXY_ERR_USAGE */
export function parseAcmeEmail(text: string): string {
  // One address: what separates several, or begins what a URL of it may have, is in none that anybody has.
  if (text.length <= 254 && /^[^\s\p{C}@,;:?&%<>"]+@(?:[a-z0-9-]+\.)+[a-z0-9-]+$/iu.test(text)) return text
  throw usage(`--acme-email: ${shown(text)} is no address of e-mail`)
}

/** @throws ProxyError PROXY_ERR_USAGE */
export function parseAcmeDirectory(text: string): string {
  const known = DIRECTORIES.get(text.toLowerCase())
  if (known !== undefined) return known
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol === 'https:' && url.username === '' && url.password === '' && url.hash === '') return url.href
  const close = nearest(text, [...DIRECTORIES.keys()])
  const advice = close ? `did you mean ${close}?` : `write ${[...DIRECTORIES.keys()].join(', ')} or an https:// URL`
  throw usage(`--acme-directory: ${shown(text)} is no directory: ${advice}`)
}

function usage(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message)
}
