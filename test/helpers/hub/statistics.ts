import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { Acceptor, connect, Proxy } from '../../../lib/core/index.ts'
import type { Connected } from '../../../lib/hub/events.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'
import { memoryPair } from '../../../lib/transports/memory.ts'
import { echo } from '../core/echo-domain.ts'

const PSK = Buffer.alloc(32, 0x52)

/** As `Side.add` makes them. */
export function peerOf(proxy: Proxy, id: string, connectedAt: Date = new Date()): Connected {
  const { remote, session, transport, peer } = proxy.main
  return {
    proxy,
    id,
    instance: `instance ${session.toString('hex')}`,
    connectedAt,
    remote,
    transport,
    enrolled: peer.credential !== '',
  }
}

export async function stateFolderOf(t: TestContext): Promise<StateFolder> {
  const path = await mkdtemp(join(tmpdir(), 'symport-statistics-'))
  t.after(() => rm(path, { recursive: true, force: true }))
  return new StateFolder(join(path, 'state'))
}

/** Sees to it that nothing can be written any more, until the returned function is called. */
export function fill(folder: StateFolder): () => void {
  const { write } = folder
  folder.write = () => Promise.reject(new Error('no space left'))
  return () => {
    folder.write = write
  }
}

/** The server's end of the main connection of a node that has proven this credential, if it has one. */
export async function serverSide(t: TestContext, credential = ''): Promise<Proxy> {
  const { a, b } = memoryPair()
  const acceptor = new Acceptor({ pskFor: async () => PSK })
  const secret = { name: credential, suite: 'NNpsk0', psk: PSK } as const
  const [{ main }, dialled] = await Promise.all([acceptor.accept(b), connect(async () => a, { secret })])
  const node = new Proxy(dialled, { domains: [echo] })
  const server = new Proxy(main, { domains: [echo] })
  t.after(async () => {
    node.close()
    server.close()
    await Promise.all([node.closed, server.closed])
  })
  return server
}
