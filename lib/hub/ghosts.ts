import { type MainConnection, ProxyError } from '../core/index.ts'
import type { Connected } from './events.ts'

/** How long an older session of the same owner has to show that it is alive, in ms. */
const PROOF_OF_LIFE = 2000

/**
 * Who a main connection belongs to, if that is proven: the name of an enrolled credential, a node key, or both. Several
 * machines may share a name, and each has a key of its own; one machine may be several nodes.
 */
export function ownerOf({ peer: { key, credential } }: MainConnection): string | undefined {
  const proven = [...(credential === '' ? [] : [`name ${credential}`]), ...(key ? [`key ${key.toString('hex')}`] : [])]
  return proven.length > 0 ? proven.join(', ') : undefined
}

/** Ends those of `peers` that do not show that they are alive. Resolves when they have let go. */
export async function endDead(peers: readonly Connected[]): Promise<void> {
  await Promise.all(
    peers.map(async ({ proxy }) => {
      if (await proxy.main.probe(PROOF_OF_LIFE)) return
      proxy.main.close(new ProxyError('PROXY_ERR_REPLACED', 'its owner has connected again'))
      await proxy.closed
    }),
  )
}

/**
 * A node that was restarted meets its own ghost: a session that waits for it to come back, or that has not noticed yet,
 * and that holds its ports and names. Resolves when those of them that are dead have let go.
 */
export async function endGhosts(main: MainConnection, peers: Iterable<Connected>): Promise<void> {
  const owner = ownerOf(main)
  if (owner === undefined) return
  await endDead([...peers].filter(({ proxy }) => proxy.main !== main && ownerOf(proxy.main) === owner))
}
