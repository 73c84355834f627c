import { type MainConnection, ProxyError } from '../core/index.ts'
import type { Connected } from './events.ts'
import { endDead } from './ghosts.ts'

/** What becomes of a second instance of one node: both stay, it is turned away, or it takes the place of the first. */
export type OnDuplicate = 'allow' | 'refuse' | 'replace'

/** Whose instance a main connection is: an enrolled node's, that of a node key, or of whoever calls itself so. */
function nodeOf({ peer: { credential, key, label } }: MainConnection): string {
  if (credential !== '') return `name ${credential}`
  return key ? `key ${key.toString('hex')}` : `label ${label}`
}

/** What the peer of a main connection is called here: the name that it has proven, or else what it calls itself. */
export function calledHere({ peer: { credential, label } }: MainConnection): string {
  return credential === '' ? label : credential
}

/** The instances of the same node that are connected, or may come back. */
export function othersOf(main: MainConnection, peers: Iterable<Connected>): Connected[] {
  const node = nodeOf(main)
  return [...peers].filter(({ proxy }) => proxy.main !== main && !proxy.main.reason && nodeOf(proxy.main) === node)
}

/**
 * Has `others` make room for a new instance, or the new one wait until it is known whether they live. Others may have
 * come meanwhile: look again.
 *
 * @throws ProxyError PROXY_ERR_DUPLICATE, retryable
 */
export async function settleDuplicates(
  rule: 'refuse' | 'replace',
  main: MainConnection,
  others: readonly Connected[],
): Promise<void> {
  const name = calledHere(main)
  if (rule === 'refuse') {
    await endDead(others)
    if (others.every(({ proxy }) => proxy.main.reason)) return
    throw new ProxyError('PROXY_ERR_DUPLICATE', `node ${name} is connected already`, { retryable: true })
  }
  for (const { proxy } of others) {
    proxy.main.close(new ProxyError('PROXY_ERR_REPLACED', `another instance of node ${name} has taken its place`))
  }
  await Promise.all(others.map(({ proxy }) => proxy.closed))
}
