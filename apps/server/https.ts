import { ProxyError } from '../../lib/core/errors.ts'
import type { Acme, AcmeEvent } from '../../lib/store/acme.ts'
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
  readonly log: Logger
}

/** What the one port needs for TLS, and what can be seen of it. */
export interface Https extends AsyncDisposable {
  readonly options: Pick<OnePortOptions, 'tls' | 'route' | 'onRequest'>
  /** Those of a public CA, with their ends; undefined if there is none. */
  readonly list: (() => { readonly name: string; readonly ends: string }[]) | undefined
  /** Whether visitors are likely to get a certificate for a name that they believe. */
  isTrusted(name: string): boolean
  /** The port is open: a CA that looks finds what it wants. */
  listening(): void
  /** The operator has put something right. */
  retry(): Promise<void>
}

/** Puts the certificates of a server together: given ones, then those of a public CA, then those of its own. */
export async function openHttps(options: HttpsOptions): Promise<Https> {
  const { certificates, onRequest, acme: settings } = options
  if (!settings) {
    return {
      options: { tls: ({ serverName }) => certificates.context(serverName), onRequest },
      list: undefined,
      isTrusted: () => false,
      listening() {},
      async retry() {},
      async [Symbol.asyncDispose]() {},
    }
  }
  const [{ openAcme }, { acmeRequests, acmeRoute, isAcmeHello }] = await Promise.all([
    import('../../lib/store/acme.ts'),
    import('../../lib/transports/acme-answers.ts'),
  ])
  const { domain, isName, log } = options
  const { directory, email, verify } = settings
  if (verify.by === 'pin') throw new ProxyError('PROXY_ERR_USAGE', 'an ACME directory is not verified by a pin')
  const acme: Acme = await openAcme(options.state, {
    ...{ directory, email, verify },
    own: domain,
    isName: (name) => name === domain || isName(name),
    onEvent: (event) => tell(log, settings, event),
  })
  const chain = chainCertificates(certificates, acme)
  const wantOwn = (): void => {
    if (domain !== undefined && !certificates.covers(domain)) acme.want(domain)
  }
  return {
    options: {
      // A CA that looks for what is not there need not wait for what it has not signed.
      tls: (hello) => (isAcmeHello(hello) ? certificates : chain).context(hello.serverName),
      route: acmeRoute(acme.challenges),
      onRequest: acmeRequests(acme.challenges, onRequest),
    },
    list: () => acme.list().map(({ name, ends }) => ({ name, ends: ends.toISOString() })),
    isTrusted: (name) => acme.promises(name),
    listening: wantOwn,
    async retry() {
      await acme.retry()
      wantOwn()
    },
    [Symbol.asyncDispose]: () => acme.close(),
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
    case 'limited':
      log.warn(
        { name: event.name, again: event.again.toISOString() },
        `no certificate for ${event.name} yet: ${event.reason}, and CAs have limits`,
      )
      break
  }
}
