import { ProxyError } from '../core/errors.ts'

/** What an ACME server says is wrong (RFC 8555 section 6.7, RFC 7807). */
export interface AcmeProblem {
  readonly type?: string | undefined
  readonly detail?: string | undefined
}

/**
 * What a failure is about. `ca`: nothing works with this CA at the moment, whatever name is asked for; `name`: this one
 * name cannot have a certificate for now.
 */
export type FailureScope = 'ca' | 'name'

/** What a CA was asked for when it said so: an account, an order, or what follows from that. */
export type Step = 'account' | 'order' | 'look'

interface FailureDetails {
  readonly cause?: unknown
  readonly retryAfter?: number | undefined
  readonly anotherWay?: boolean | undefined
  readonly perhapsName?: boolean | undefined
}

/** Why a certificate could not be had, for people, and what that is about. */
export class AcmeFailure extends ProxyError {
  readonly scope: FailureScope
  /** The CA does not want to be asked before that, in ms from now. */
  readonly retryAfter: number | undefined
  /** It may be otherwise if the CA looks in another way. */
  readonly anotherWay: boolean
  /** Of `ca`: it may have to do with this one name all the same. */
  readonly perhapsName: boolean

  constructor(message: string, about: FailureDetails & { readonly scope: FailureScope }) {
    super('PROXY_ERR_ACME', message, { cause: about.cause, retryable: true })
    this.scope = about.scope
    this.retryAfter = about.retryAfter
    this.anotherWay = about.anotherWay ?? false
    this.perhapsName = about.perhapsName ?? false
  }
}

const PREFIX = 'urn:ietf:params:acme:error:'
const LONGEST_DETAIL = 300

/** By the last part of a problem's type: what it means here, and what can be done. `name` is the host. */
const MEANINGS: Readonly<Record<string, (name: string) => readonly [FailureScope, string]>> = {
  dns: (name) => [
    'name',
    `${name} is not found in the DNS: add an A or AAAA record that points to this server (*.DOMAIN covers all names below it)`,
  ],
  connection: (name) => [
    'name',
    `the CA cannot connect to ${name}: its address in the DNS must be this server's, and port 443 or 80 there must lead here`,
  ],
  unauthorized: (name) => ['name', elsewhere(name)],
  incorrectResponse: (name) => ['name', elsewhere(name)],
  tls: (name) => ['name', elsewhere(name)],
  caa: (name) => ['name', `a CAA record in the DNS says that this CA may give no certificate for ${name}`],
  rejectedIdentifier: (name) => ['name', `the CA gives no certificate for ${name}`],
  unsupportedIdentifier: (name) => ['name', `the CA gives no certificate for ${name}`],
  rateLimited: () => ['name', "the CA's limit is reached"],
  malformed: (name) => ['name', `the CA does not take the order for ${name}`],
  badCSR: (name) => ['name', `the CA does not take the order for ${name}`],
  orderNotReady: (name) => ['name', `the CA does not take the order for ${name}`],
  invalidContact: () => ['ca', 'the CA does not take the address of --acme-email'],
  unsupportedContact: () => ['ca', 'the CA does not take the address of --acme-email'],
  externalAccountRequired: () => [
    'ca',
    'this CA wants an account that was made there beforehand: give its key with --acme-eab-kid and --acme-eab-hmac-file',
  ],
  userActionRequired: () => ['ca', 'the terms of the CA have changed: see what it says'],
  accountDoesNotExist: () => ['ca', 'the CA does not know the account any more; another one is made'],
}

/** The same of a look at the records of a wildcard. */
function meaningInDns(name: string, kind: string): readonly [FailureScope, string] | undefined {
  if (!['dns', 'unauthorized', 'incorrectResponse'].includes(kind)) return undefined
  const record = `_acme-challenge.${name.slice(2)}`
  return [
    'name',
    `the CA does not find what it wants at ${record} (TXT): the hook has to add each value beside those that are there, with a short time to live, and all name servers must have it`,
  ]
}

/** The same where the CA does not say it of a name at which it has looked, but of what it is asked for. */
function meaningAt(step: Step, kind: string): readonly [FailureScope, string] | undefined {
  if (kind === 'unauthorized') return ['ca', 'the CA does not accept the account']
  if (step === 'look') return undefined
  if (kind === 'rateLimited') return ['ca', "the CA's limit is reached"]
  if (kind === 'malformed' && step === 'account') return ['ca', 'the CA does not accept the account']
  return undefined
}

function elsewhere(name: string): string {
  return `something else answers at ${name}: its address in the DNS must be this server's, and a proxy in front must pass the CA on`
}

/** What a problem means, for people, with what the CA itself says. Without `step` it is what came of a look at the name. */
export function explain(
  problem: AcmeProblem,
  name: string,
  { step, ...about }: FailureDetails & { readonly step?: Step | undefined } = {},
): AcmeFailure {
  const kind = kindOf(problem) ?? ''
  const known = Object.hasOwn(MEANINGS, kind) ? MEANINGS[kind] : undefined
  const inDns = step === undefined && name.startsWith('*.') ? meaningInDns(name, kind) : undefined
  const [scope, meaning] =
    (step && meaningAt(step, kind)) ?? inDns ?? known?.(name) ?? (['ca', 'the CA has a problem'] as const)
  const said = onOneLine((problem.detail ?? problem.type ?? '').slice(0, LONGEST_DETAIL))
  // CAs have limits for all of an account, and for a name: they do not say which.
  const perhapsName = step === 'order' && kind === 'rateLimited'
  const message = said === '' ? meaning : `${meaning} (the CA says: ${said})`
  return new AcmeFailure(message, { scope, perhapsName, ...about })
}

/** The CA has said nothing that is wrong, and nothing that makes sense either. */
export function notUnderstood(error: unknown): AcmeFailure {
  const why = onOneLine((error instanceof Error ? error.message : String(error)).slice(0, LONGEST_DETAIL))
  const message = `what the CA answers is not understood: is --acme-directory the URL of an ACME directory? (${why})`
  return new AcmeFailure(message, { scope: 'ca', cause: error })
}

/** What is none already was thrown by code that is not ours, and is about the name that it was called for. */
export function failureOf(error: unknown): ProxyError {
  if (error instanceof ProxyError) return error
  return new AcmeFailure(error instanceof Error ? error.message : String(error), { scope: 'name', cause: error })
}

/** The last part of a problem's type, as RFC 8555 has it. */
export function kindOf({ type }: AcmeProblem): string | undefined {
  return type?.startsWith(PREFIX) ? type.slice(PREFIX.length) : undefined
}

/** The problem that the text of an answer is, if it is one. */
export function readProblem(text: string): AcmeProblem | undefined {
  try {
    return problemIn(JSON.parse(text))
  } catch {
    return undefined
  }
}

/** The same in JSON that was read already, as in the `error` of a challenge. */
export function problemIn(json: unknown): AcmeProblem | undefined {
  if (typeof json !== 'object' || json === null) return undefined
  const type = 'type' in json && typeof json.type === 'string' ? json.type : undefined
  const detail = 'detail' in json && typeof json.detail === 'string' ? json.detail : undefined
  return type === undefined && detail === undefined ? undefined : { type, detail }
}

/** Seconds or a date, in ms from now. */
export function readRetryAfter(header: string | undefined, now: number): number | undefined {
  if (header === undefined) return undefined
  const isDate = /^[a-z]{3}/i.test(header)
  const ms = isDate ? Date.parse(header) - now : /^\d{1,9}$/.test(header) ? Number(header) * 1000 : Number.NaN
  return Number.isFinite(ms) && ms > 0 ? ms : undefined
}

/** Somebody else's words: on one line, and without what a terminal obeys. */
export function onOneLine(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}\s]+/gu, ' ').trim()
}
