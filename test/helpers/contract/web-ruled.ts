import type { Endpoint } from '../../../lib/core/index.ts'
import type { HttpSettings } from '../../../lib/domains/http-settings.ts'
import type { WebPort } from './web-port.ts'

/** Listens at a web port, with settings that are read anew for each request. */
export async function listenRuled(
  port: WebPort,
  at: string,
  to: number,
  settings: () => unknown,
  domain: 'web' | 'ws' = 'web',
): Promise<void> {
  const Forward: Endpoint = { Domain: 'tcp', Addr: `127.0.0.1:${to}` }
  const plugin = port.web.domains.find(({ name }) => name === domain)
  const context = {
    signal: new AbortController().signal,
    settings,
    forward: () => Forward,
    open: async ({ from }: { from?: string | undefined } = {}) => port.pair.dialling.open({ to: Forward, from }),
  }
  await plugin?.listen?.({ Domain: domain, Addr: at }, context)
}

/** The same, for settings that stay. */
export async function listenWith(port: WebPort, to: number, settings: HttpSettings): Promise<void> {
  await listenRuled(port, '/', to, () => settings)
}

/** RFC 7617 section 2. */
export function basic(name: string, password: string): { readonly authorization: string } {
  return { authorization: `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}` }
}
