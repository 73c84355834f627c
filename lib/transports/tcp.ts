import type { AddressInfo } from 'node:net'
import type { Abortable, Link } from '../core/index.ts'
import { dialSocket } from '../sockets/dial.ts'
import { listen, unlisten } from '../sockets/listen.ts'
import type { LinkListener } from './transport.ts'

export interface TcpAddress {
  readonly host: string
  readonly port: number
}

/** A little less than `connect` waits for a dial, or nobody would hear what it was that did not answer. In ms. */
const TIMEOUT = 9500
const KEEPALIVE = { keepAlive: true, keepAliveInitialDelay: 60_000 }
const shown = ({ host, port }: TcpAddress): string => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`)

/** Links over TCP. */
export async function dialTcp(to: TcpAddress, options: Abortable & { timeout?: number } = {}): Promise<Link> {
  const { signal, timeout = TIMEOUT } = options
  const name = shown(to)
  const advice = `is TCP ${to.port} open in the firewall?`
  const dial = { signal, timeout, name, advice }
  return await dialSocket({ ...to, noDelay: true, autoSelectFamily: true, ...KEEPALIVE }, dial)
}

/** `host` empty: all interfaces. Port 0: any free one. */
export async function listenTcp(at: TcpAddress, onLink: (link: Link) => void): Promise<LinkListener> {
  const where = at.host === '' ? { port: at.port } : at
  const server = await listen(where, shown(at), onLink)
  const address = server.address() as AddressInfo
  return { address: shown({ host: address.address, port: address.port }), close: () => unlisten(server) }
}
