import type { CertificateStatus } from '../../lib/hub/operations.ts'
import type { Acme, AcmeEvent, CertificateStatus as StoredStatus } from '../../lib/store/acme.ts'
import { type Certificates, chainCertificates } from '../../lib/store/certificates.ts'
import type { StateFolder } from '../../lib/store/state-folder.ts'
import type { OnePortOptions } from '../../lib/transports/one-port.ts'
import type { AcmeSettings } from '../common/acme-flags.ts'
import type { Logger } from '../common/log.ts'

export interface HttpsOptions {
  readonly state: StateFolder
  /** Undefined: there are no certificates but the server's own. */
  readonly acme: AcmeSettings | undefined
  readonly certificates: Certificates
  /** The server's own name, which gets its certificate without being asked for. */
  readonly domain: string | undefined
  /** Whether a name is served here. */
  readonly isName: (name: string) => boolean
  readonly onRequest: NonNullable<OnePortOptions['onRequest']>
  /** Takes what is passed on undecrypted. */
  readonly route: NonNullable<OnePortOptions['route']>
  readonly log: Logger
}

/** What the one port needs for TLS, and what can be seen of it. */
export interface Https extends AsyncDisposable {
  readonly options: Pick<OnePortOptions, 'tls' | 'route' | 'onRequest'>
  /** Those that were given, and those of a public CA. */
  list(): CertificateStatus[]
  /** Whether visitors are likely to get a certificate for a name that they believe. */
  isTrusted(name: string): boolean
  /** The port is open: a CA that looks finds what it wants. */
  listening(): void
  /** The operator has put something right. */
  retry(): Promise<void>
}

/** Puts the certificates of a server together: given ones, then those of a public CA, then those of its own. */
export async function openHttps(options: HttpsOptions): Promise<Https> {
  const { certificates, onRequest, route, acme: settings } = options
  if (!settings) {
    return {
      options: { tls: ({ serverName }) => certificates.context(serverName), route, onRequest },
      list: () => certificates.list().map(statusOf),
      isTrusted: () => false,
      listening() {},
      async retry() {},
      async [Symbol.asyncDispose]() {},
    }
  }
  const [{ hookRecords, openAcme }, { acmeRequests, acmeRoute, isAcmeHello }] = await Promise.all([
    import('../../lib/store/acme.ts'),
    import('../../lib/transports/acme-answers.ts'),
  ])
  const { domain, isName, log } = options
  const { directory, email, verify, external, dns } = settings
  const records = dns && domain !== undefined ? { domain, records: hookRecords(dns.hook), wait: dns.wait } : undefined
  const acme: Acme = await openAcme(options.state, {
    ...{ directory, email, verify, external, dns: records },
    own: domain,
    isName: (name) => !certificates.covers(name) && (name === domain || isName(name)),
    onEvent: (event) => tell(log, settings, event),
  })
  const chain = chainCertificates(certificates, acme)
  const toAcme = acmeRoute(acme.challenges)
  const wantOwn = (): void => {
    if (domain !== undefined && (records || !certificates.covers(domain))) acme.want(domain)
  }
  return {
    options: {
      // A CA that looks for what is not there need not wait for what it has not signed.
      tls: (hello) => (isAcmeHello(hello) ? certificates : chain).context(hello.serverName),
      // Only what this server has asked a CA for just now: a target that has its TLS passed on answers a CA of its own.
      route: (hello, socket, caller) => toAcme(hello, socket) || route(hello, socket, caller),
      onRequest: acmeRequests(acme.challenges, onRequest),
    },
    list: () => [...certificates.list(), ...acme.list()].map(statusOf),
    isTrusted: (name) => acme.promises(name),
    listening: wantOwn,
    async retry() {
      await acme.retry()
      wantOwn()
    },
    [Symbol.asyncDispose]: () => acme.close(),
  }
}

function statusOf({ name, begins, ends, problem }: StoredStatus): CertificateStatus {
  return {
    name,
    ...(begins && ends ? { begins: begins.toISOString(), ends: ends.toISOString() } : {}),
    ...(problem === undefined ? {} : { problem }),
  }
}

function tell(log: Logger, { directory, email }: AcmeSettings, event: AcmeEvent): void {
  const ca = new URL(directory).host
  switch (event.type) {
    case 'terms':
      log.info({ ca, terms: event.url }, `an account for ${email} is made at ${ca}: --acme-email agrees to its terms`)
      break
    case 'issued':
    case 'renewed':
      log.info({ name: event.name, ends: event.ends.toISOString(), by: event.by }, `certificate ${event.type}`)
      break
    case 'failed':
      log.warn(
        { name: event.name, code: event.reason.code, again: event.again.toISOString() },
        `no certificate for ${event.name}: ${event.reason.message}`,
      )
      break
    case 'untidy':
      log.warn({ code: event.reason.code }, `a record stays in the DNS: ${event.reason.message}`)
      break
    case 'limited':
      log.warn(
        { name: event.name, again: event.again.toISOString() },
        `no certificate for ${event.name} yet: ${event.reason}, and CAs have limits`,
      )
      break
  }
}
