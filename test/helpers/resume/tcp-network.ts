import type { Link } from '../../../lib/core/index.ts'
import { dialTcp, listenTcp } from '../../../lib/transports/tcp.ts'
import type { Cut, Direction } from '../faults/direction.ts'
import type { Network } from './faulty-pair.ts'

export interface TcpNetwork extends Network, AsyncDisposable {
  /** How many there have been. */
  readonly links: number
  /** Ends the newest link at the end of the side that dialled (`up`), or of the other. */
  cut(how: Cut, at: Direction): void
}

/** Links over the loopback, whose ends a test can take from under the two sides. */
export async function tcpNetwork(): Promise<TcpNetwork> {
  let onLink: (link: Link) => void = (link) => link.destroy()
  const newest: Record<Direction, Link | undefined> = { up: undefined, down: undefined }
  let links = 0
  const listener = await listenTcp({ host: '127.0.0.1', port: 0 }, (link) => {
    newest.down = link
    onLink(link)
  })
  const port = Number(listener.address.split(':').at(-1))
  return {
    get links() {
      return links
    },
    async dial(options) {
      const link = await dialTcp({ host: '127.0.0.1', port }, options)
      newest.up = link
      links++
      return link
    },
    listen(callback) {
      onLink = callback
    },
    cut(how, at) {
      if (how === 'fin') newest[at]?.end()
      else newest[at]?.destroy(new Error('cut'))
    },
    async [Symbol.asyncDispose]() {
      for (const link of [newest.up, newest.down]) link?.destroy()
      await listener.close()
    },
  }
}
