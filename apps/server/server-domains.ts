import type { DomainPlugin } from '../../lib/core/index.ts'
import { type Channels, createChannels } from '../../lib/domains/channel.ts'
import { createTlsNames, type TlsNames } from '../../lib/domains/tls-names.ts'
import { createWeb, type Web, type WebOptions } from '../../lib/domains/web.ts'
import type { WspServer } from '../common/config.ts'
import { createDomains, type DomainSettings } from '../common/options.ts'
import { DEFAULT_PATH } from '../common/transport-flags.ts'

/** What can be listened on and forwarded to at a server: beside what both sides have, names at its port, and of channels. */
export interface ServerDomains {
  readonly domains: readonly DomainPlugin[]
  readonly web: Web
  readonly tlsNames: TlsNames
  readonly channels: Channels
}

/** `reserved`: the paths at which nodes connect. */
export function createServerDomains(settings: DomainSettings & Pick<WebOptions, 'reserved'> = {}): ServerDomains {
  const tlsNames = createTlsNames({ ...settings, isWeb: (host) => web.hasHost(host) })
  const web = createWeb({ reserved: settings.reserved, isTls: tlsNames.has })
  const channels = createChannels()
  // Of `tls` a server has more than what both sides have.
  const both = createDomains(settings).filter(({ name }) => name !== tlsNames.domain.name)
  return { domains: [...both, tlsNames.domain, ...web.domains, channels.domain], web, tlsNames, channels }
}

/**
 * Where nodes connect. wsp's `path` comes on top of where nodes of symport look by themselves; if it is `/`, nothing is to
 * be done: they may connect there on any server, and a WebSocket that is not theirs is left to who has the name.
 */
export function webSocketPaths(path: string | readonly string[] = DEFAULT_PATH, wsp: WspServer | undefined): string[] {
  const paths = [path].flat().map((one) => one.replace(/(?<=.)\/$/, ''))
  return wsp ? [...new Set([...paths, DEFAULT_PATH])].filter((one) => one !== '/') : paths
}
