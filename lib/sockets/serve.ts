import type { AddressInfo, ListenOptions } from 'node:net'
import { type Endpoint, join, type Link, type ListenContext, type Listener } from '../core/index.ts'
import { listen, unlisten } from './listen.ts'
import type { ReadBuffer } from './socket-link.ts'

export interface Served {
  readonly address: AddressInfo | string | null
  /** The listener that `bound` describes. */
  listener(bound: Endpoint): Listener
}

/** Listens, and joins each connection to a sub-connection that is opened for it. */
export async function serve(
  options: ListenOptions,
  name: string,
  readBuffer: ReadBuffer,
  context: ListenContext,
): Promise<Served> {
  const onLink = (link: Link): void => {
    context.open({ from: link.remote }).then(
      (sub) => join(sub, link),
      () => link.destroy(),
    )
  }
  const server = await listen(options, name, onLink, readBuffer)
  let closed: Promise<void> | undefined
  const close = (): Promise<void> => {
    closed ??= unlisten(server)
    return closed
  }
  return {
    address: server.address(),
    listener: (bound) => ({ bound, close, [Symbol.asyncDispose]: close }),
  }
}
