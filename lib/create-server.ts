import type { KeyObject } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import {
  assertSecret,
  type Credential,
  deriveCredential,
  type Link,
  type MainConnection,
  type Policy,
  ProxyError,
  suiteOf,
} from './core/index.ts'
import type { Channels } from './domains/channel.ts'
import { channelRelay } from './hub/channels.ts'
import { Door, Rejections } from './hub/door.ts'
import { calledHere, type OnDuplicate, othersOf, settleDuplicates } from './hub/duplicates.ts'
import type { Connected } from './hub/events.ts'
import type { Identities, IdentityChange } from './hub/identities.ts'
import type { Limiter } from './hub/limits.ts'
import type { MappingTable } from './hub/mapping-table.ts'
import { Side, type SideOptions } from './hub/side.ts'
import { Admission } from './policy/admission.ts'
import type { LinkListener } from './transports/transport.ts'

export interface ServerOptions extends SideOptions {
  /** Listens for links, as `(onLink) => listenTcp({ host: '', port: 925 }, onLink)` does. */
  listen: (onLink: (link: Link) => void) => Promise<LinkListener>
  /** A token made for `staticKey`, or a secret that a person chose. With `enrolledOnly` it is not looked at. */
  secret: string
  /** What `deriveCredential` makes of the secret, where that is under way already. */
  credential?: Promise<Credential> | undefined
  /** The private X25519 key whose public half is in the token, and in those of `identities`. */
  staticKey?: KeyObject | undefined
  /** The nodes that have credentials of their own. Default: none. */
  identities?: Identities | undefined
  /** Nobody connects with the shared secret. Default false. */
  enrolledOnly?: boolean | undefined
  /** The channels of nodes, so that this side's own mappings can join them. Their `domain` is one of `domains`. */
  channels?: Channels | undefined
  /** Addresses and CIDRs of proxies that nodes come through: they stand for many. Default: none. */
  trustedProxies?: readonly string[] | undefined
  /** What becomes of a second instance of one node. Default `allow`. */
  onDuplicate?: OnDuplicate | undefined
  /** Handshakes at once, in all and from one address. Default 1,024 and 64. */
  maxHandshakes?: number | undefined
  handshakesPerAddress?: number | undefined
  /** Main connections at once, those without a link included. Default 4,096. */
  maxSessions?: number | undefined
}

export interface SymportServer extends AsyncDisposable {
  /** Where it really listens: `0.0.0.0:925`. */
  readonly address: string
  /** The nodes that are connected, in the order in which they came. */
  readonly nodes: Iterable<Connected> & { readonly size: number }
  /** The mappings of this side, which can be changed while it runs. */
  readonly mappings: MappingTable
  /** Who was refused for the sake of limits. */
  readonly limiter: Pick<Limiter, 'refusedAt'>
  /** Bytes held for all nodes together; see `heldBytes` in the options. */
  readonly heldBytes: number
  /** Takes nothing new, lets what is open finish until `signal` fires, then closes all. */
  drain(options?: { signal?: AbortSignal }): Promise<void>
  /** Closes all at once. */
  close(): Promise<void>
}

/**
 * A server: accepts main connections of nodes that know the secret, and keeps this side's mappings. It listens when the
 * promise resolves; a mapping that cannot listen is an event, and the others go on.
 *
 * @throws ProxyError PROXY_ERR_LISTEN_FAILED if nodes cannot be listened for, PROXY_ERR_SECRET if the secret is empty
 */
export async function createServer(options: ServerOptions): Promise<SymportServer> {
  const { secret, staticKey, identities, enrolledOnly = false, onDuplicate = 'allow' } = options
  if (!enrolledOnly) assertSecret(secret)
  const suite = suiteOf(secret)
  // Under way while the rest starts: a node that is quick waits for it in its handshake.
  const psk = enrolledOnly ? undefined : (options.credential ?? deriveCredential(secret)).then(({ psk }) => psk)
  const policyFor = (main: MainConnection): Policy => {
    const forAll = options.policyFor?.(main) ?? options.policy
    return isEnrolled(main) && identities ? identities.policyFor(main.peer.credential, forAll) : forAll
  }
  const { channels } = options
  const relay = options.relay ?? (channels && channelRelay({ way: channels.open }))
  const nodeLimits = options.nodeLimits ?? identities
  const side = await Side.open({ ...options, relay, policyFor, nodeLimits })
  const unused = side.budget.free
  const closing = new AbortController()
  // Each handshake under way listens.
  setMaxListeners(0, closing.signal)
  const { keepalive, resumeTimeout, limits, maxHandshakes, maxSessions } = options
  /** What each link has to prove, by name. */
  const asked = new WeakMap<Link, { readonly name: string; readonly isCurrent: () => boolean }>()
  const door = new Door(new Admission({ perAddress: options.handshakesPerAddress, trusted: options.trustedProxies }), {
    ...{ staticKey, keepalive, resumeTimeout, limits, maxHandshakes, maxSessions, budget: side.budget },
    pskFor: async (name, wanted, link) => {
      if (name === '') return wanted === suite ? await psk : undefined
      const own = identities?.pskFor(name, wanted)
      asked.set(link, { name, isCurrent: () => own !== undefined && identities?.pskFor(name, wanted) === own })
      return own
    },
  })
  const rejections = new Rejections((remote, reason) => side.onEvent({ type: 'rejected', remote, reason }))

  /** Why a main connection cannot stay. What was true when its handshake began may not be any more. */
  const objection = (link: Link, main: MainConnection): ProxyError | undefined => {
    // While it stops, links come in for what is open only.
    if (side.stopping.aborted)
      return new ProxyError('PROXY_ERR_DRAINING', 'the server is about to stop', { retryable: true })
    const { credential, label } = main.peer
    if (credential === '') return identities?.has(label) ? idTaken(label) : undefined
    return asked.get(link)?.isCurrent() ? undefined : notAnyMore(credential, 'changed')
  }

  /** Asks everything again after each wait, and adds it in the turn in which nothing is left to wait for. */
  const welcome = async (link: Link, main: MainConnection): Promise<void> => {
    while (!main.reason) {
      const problem = objection(link, main)
      if (problem) throw problem
      const others = othersOf(main, side.pool)
      if (onDuplicate === 'allow' || others.length === 0) {
        const peer = side.add(main, calledHere(main))
        if (others.length > 0) side.onEvent({ type: 'duplicate', peer, others })
        return
      }
      await settleDuplicates(onDuplicate, main, others)
    }
  }

  const onLink = async (link: Link): Promise<void> => {
    let main: MainConnection | undefined
    try {
      const accepted = await door.accept(link, closing.signal)
      if (accepted.resumed) return
      main = accepted.main
      if (!isEnrolled(main)) rejections.explain(link.remote, main.peer.label)
      await welcome(link, main)
    } catch (error) {
      const reason = ProxyError.from(error, 'PROXY_ERR_HANDSHAKE')
      main?.close(reason)
      const name = asked.get(link)?.name
      const unknown = name !== undefined && !identities?.has(name) ? name : undefined
      if (!side.stopping.aborted) rejections.add(link.remote, reason, unknown)
    }
  }

  const onChanged = (id: string, why: IdentityChange): void => {
    if (why === 'enabled' || why === 'changed') return
    for (const { proxy } of [...side.pool]) {
      const { credential, label } = proxy.main.peer
      if (why === 'added') {
        if (credential === '' && label === id) proxy.main.close(idTaken(id))
      } else if (credential === id) proxy.main.close(notAnyMore(id, why))
    }
  }
  const unsubscribe = identities?.onChanged(onChanged)

  const listener: LinkListener = await options.listen(onLink).catch(async (error) => {
    unsubscribe?.()
    await side.drain(AbortSignal.abort())
    throw error
  })
  side.onEvent({ type: 'listening', address: listener.address })
  await Promise.all([side.listen(), psk])

  const drain = async ({ signal = new AbortController().signal } = {}): Promise<void> => {
    rejections.flush()
    await side.drain(signal)
    unsubscribe?.()
    closing.abort()
    await listener.close()
  }
  const close = (): Promise<void> => drain({ signal: AbortSignal.abort() })
  return {
    address: listener.address,
    nodes: side.pool,
    mappings: side.mappings,
    limiter: side.limiter,
    get heldBytes() {
      return unused - side.budget.free
    },
    drain,
    close,
    [Symbol.asyncDispose]: close,
  }
}

function isEnrolled({ peer }: MainConnection): boolean {
  return peer.credential !== ''
}

/** A name that somebody has to prove is nobody else's label: what is mapped to it would go astray. */
function idTaken(id: string): ProxyError {
  const message = `${id} is the id of a node with a secret of its own: start this one with that secret, or another --id`
  return new ProxyError('PROXY_ERR_ID_TAKEN', message)
}

const NOT_ANY_MORE: Readonly<Record<Exclude<IdentityChange, 'added' | 'enabled'> | 'changed', string>> = {
  removed: 'was removed from the server',
  disabled: 'was disabled at the server',
  rotated: 'has a new secret',
  expired: 'was admitted for a time that is over',
  changed: 'was changed at the server meanwhile',
}

function notAnyMore(id: string, why: keyof typeof NOT_ANY_MORE): ProxyError {
  return new ProxyError('PROXY_ERR_REFUSED', `node ${id} ${NOT_ANY_MORE[why]}`, { retryable: true })
}
