import { constants } from 'node:fs'
import { access, readFile, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { ProxyError } from '../../lib/core/errors.ts'
import { nearest } from '../../lib/domains/nearest.ts'
import { shown } from '../../lib/domains/text.ts'
import type { VerifyCaller } from '../../lib/sockets/https-caller.ts'
import { notEmpty, type StringFlag, toDuration } from './flags.ts'
import { readCa } from './transport-flags.ts'

/** The CAs that have a word of their own. */
const DIRECTORIES: ReadonlyMap<string, string> = new Map([
  ['letsencrypt', 'https://acme-v02.api.letsencrypt.org/directory'],
  ['letsencrypt-staging', 'https://acme-staging-v02.api.letsencrypt.org/directory'],
])

/** Certificates of a public CA. */
export const ACME_FLAGS: readonly [
  StringFlag<'acme-email'>,
  StringFlag<'acme-directory'>,
  StringFlag<'acme-ca'>,
  StringFlag<'acme-eab-kid'>,
  StringFlag<'acme-eab-hmac-file'>,
  StringFlag<'acme-dns-hook'>,
  StringFlag<'acme-dns-wait'>,
] = [
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
  {
    name: 'acme-eab-kid',
    kind: 'string',
    value: 'ID',
    help: 'The id of the account that you have at a CA which wants one (external account binding).',
  },
  {
    name: 'acme-eab-hmac-file',
    kind: 'string',
    value: 'FILE',
    help: 'A file with the key of that account, as the CA shows it (base64url).',
  },
  {
    name: 'acme-dns-hook',
    kind: 'string',
    value: 'PROGRAM',
    help: 'Get one certificate for all names directly below --domain (*.DOMAIN): the program writes the record for it, called with present or cleanup, NAME and VALUE, as lego calls one.',
  },
  {
    name: 'acme-dns-wait',
    kind: 'string',
    value: 'DURATION',
    help: 'Have the CA look so long after that program is done. Default: when all name servers of the zone have the record.',
  },
]

export interface AcmeSettings {
  readonly email: string
  readonly directory: string
  readonly verify: VerifyCaller
  /** How a CA that wants one knows the account we have there already. */
  readonly external?: { readonly kid: string; readonly hmacKey: string } | undefined
  /** The program that writes into the DNS, and how long that is waited for, in ms. */
  readonly dns?: { readonly hook: string; readonly wait: number | undefined } | undefined
}

export interface AcmeFlagValues {
  readonly 'acme-email': string | undefined
  readonly 'acme-directory': string | undefined
  readonly 'acme-ca': string | undefined
  readonly 'acme-eab-kid': string | undefined
  readonly 'acme-eab-hmac-file': string | undefined
  readonly 'acme-dns-hook': string | undefined
  readonly 'acme-dns-wait': string | undefined
  readonly domain: string | undefined
}

const OTHERS = [
  'acme-directory',
  'acme-ca',
  'acme-eab-kid',
  'acme-eab-hmac-file',
  'acme-dns-hook',
  'acme-dns-wait',
] as const
/** Of a key in a file, in bytes. */
const LONGEST_KEY = 4096
/** In ms. */
export const LONGEST_DNS_WAIT: number = 600_000

/**
 * Undefined if there is to be none.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export async function parseAcmeFlags(values: AcmeFlagValues): Promise<AcmeSettings | undefined> {
  const email = notEmpty(values['acme-email'], 'acme-email')
  const given = OTHERS.find((flag) => notEmpty(values[flag], flag) !== undefined)
  if (email === undefined) {
    if (given !== undefined) throw usage(`--${given} says nothing without --acme-email`)
    return undefined
  }
  const ca = values['acme-ca']
  const external = await externalAccount(values)
  const dns = await dnsHook(values)
  return {
    email: parseAcmeEmail(email),
    directory: parseAcmeDirectory(values['acme-directory'] ?? 'letsencrypt'),
    verify: ca === undefined ? { by: 'system' } : await readCa(ca, 'acme-ca'),
    ...(external ? { external } : {}),
    ...(dns ? { dns } : {}),
  }
}

async function externalAccount(values: AcmeFlagValues): Promise<AcmeSettings['external']> {
  const { 'acme-eab-kid': kid, 'acme-eab-hmac-file': path } = values
  if (kid === undefined && path === undefined) return undefined
  if (kid === undefined) throw usage('--acme-eab-hmac-file is given without --acme-eab-kid')
  if (path === undefined) throw usage('--acme-eab-kid is given without --acme-eab-hmac-file')
  if (kid.length > 1000 || /[\s\p{C}]/u.test(kid)) throw usage('--acme-eab-kid: that is no id of an account')
  const text = await readFlagFile(path, 'acme-eab-hmac-file')
  const hmacKey = text.trim()
  // Some CAs show it in base64 with its padding.
  if (!/^[A-Za-z0-9_+/-]{22,}={0,2}$/.test(hmacKey)) {
    throw usage(`--acme-eab-hmac-file: in ${path} there is no key, as the CA shows it (base64url)`)
  }
  return { kid, hmacKey }
}

async function readFlagFile(path: string, flag: string): Promise<string> {
  try {
    if ((await stat(path)).size > LONGEST_KEY) throw usage(`--${flag}: ${path} is too large`)
    return await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof ProxyError) throw error
    throw usage(`--${flag}: cannot read ${path}: ${reasonOf(error)}`, error)
  }
}

async function dnsHook(values: AcmeFlagValues): Promise<AcmeSettings['dns']> {
  const { 'acme-dns-hook': given, 'acme-dns-wait': wait } = values
  if (given === undefined) {
    if (wait !== undefined) throw usage('--acme-dns-wait says nothing without --acme-dns-hook')
    return undefined
  }
  if (values.domain === undefined) throw usage('--acme-dns-hook says nothing without --domain')
  const hook = resolve(given)
  try {
    // A folder, too, is what the system calls executable.
    if (!(await stat(hook)).isFile()) throw usage(`--acme-dns-hook: ${given} is no file`)
    await access(hook, constants.X_OK)
  } catch (error) {
    if (error instanceof ProxyError) throw error
    const why = reasonOf(error)
    const advice = why === 'permission denied' ? 'it is not executable (chmod +x)' : why
    throw usage(`--acme-dns-hook: cannot run ${given}: ${advice}`, error)
  }
  return { hook, wait: wait === undefined ? undefined : parseDnsWait(wait) }
}

function parseDnsWait(text: string): number {
  const ms = toDuration(text, 'acme-dns-wait')
  if (ms > LONGEST_DNS_WAIT) throw usage('--acme-dns-wait: 10m are the most')
  return ms
}

function reasonOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
  return code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'permission denied' : code
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

function usage(message: string, cause?: unknown): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message, cause === undefined ? {} : { cause })
}
