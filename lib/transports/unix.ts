import type { Abortable, Link } from '../core/index.ts'
import { dialSocket } from '../sockets/dial.ts'
import { listen, unlisten } from '../sockets/listen.ts'
import { removeStale } from '../sockets/stale.ts'
import type { LinkListener } from './transport.ts'

/** Links over a Unix socket. */
export async function dialUnix(path: string, options: Abortable & { timeout?: number } = {}): Promise<Link> {
  const { signal, timeout = 10_000 } = options
  return await dialSocket({ path }, { signal, timeout, name: path })
}

export async function listenUnix(path: string, onLink: (link: Link) => void): Promise<LinkListener> {
  await removeStale(path)
  const server = await listen({ path }, path, onLink)
  return { address: path, close: () => unlisten(server) }
}
