import { Duplex } from 'node:stream'
import { type DomainPlugin, type Endpoint, isLink, type Link, linkFrom } from '../../../lib/core/index.ts'
import { createNode, type SymportNode } from '../../../lib/create-node.ts'
import { createServer, type ServerOptions, type SymportServer } from '../../../lib/create-server.ts'
import { type Channels, createChannels } from '../../../lib/domains/channel.ts'
import type { ChannelEndpoint } from '../../../lib/domains/channel-address.ts'
import { Hidden } from '../../../lib/domains/hidden.ts'
import type { Spec } from '../../../lib/domains/spec.ts'
import { tcp } from '../../../lib/domains/tcp.ts'
import { udp } from '../../../lib/domains/udp.ts'
import { channelRelay } from '../../../lib/hub/channels.ts'
import type { HubEvent } from '../../../lib/hub/events.ts'
import type { ChannelRelayOptions } from '../../../lib/hub/relay.ts'
import { allowAll, type NodeOptions, ProxyError } from '../../../lib/index.ts'
import { type MemoryPair, memoryPair } from '../../../lib/transports/memory.ts'
import { cheapScrypt } from './cheap-scrypt.ts'
import type { EventOf } from './mappings.ts'

export const ANY_TCP: Endpoint = { Domain: 'tcp', Addr: '127.0.0.1:0' }
export const ANY_UDP: Endpoint = { Domain: 'udp', Addr: '127.0.0.1:0' }

/** What a server may do with a sub-connection that it relays: answers what stands in its place. */
export type Meddle = (far: Duplex) => Duplex

export interface NodeSettings {
  /** What it offers. */
  readonly offers?: readonly Spec[]
  /** What it listens for. */
  readonly listeners?: readonly Spec[]
  readonly domains?: readonly DomainPlugin[]
  readonly relay?: ChannelRelayOptions
  readonly options?: Partial<NodeOptions>
}

export interface TestNode extends AsyncDisposable {
  readonly node: SymportNode
  readonly events: readonly HubEvent[]
  /** The first event of this kind that `accept` takes, of those that were and those to come. */
  event<T extends HubEvent['type']>(type: T, accept?: (event: EventOf<T>) => boolean): Promise<EventOf<T>>
  told<T extends HubEvent['type']>(type: T): EventOf<T>[]
  /** Where its listener of this number really is. */
  bound(index?: number): Endpoint
  /** Loses the link to the server. */
  cut(): void
  /** Loses it, and finds no other. */
  stun(): void
}

export interface ChannelStage extends AsyncDisposable {
  readonly server: SymportServer
  readonly channels: Channels
  /** From now on this is what the server does with what it relays. */
  meddle: Meddle
  node(id: string, settings?: NodeSettings): Promise<TestNode>
}

/** A channel, or a tunnel by way of one, with its password. */
export function named(Domain: 'channel' | 'tunnel', Addr: string, password = 'pw'): ChannelEndpoint {
  return { Domain, Addr, Password: new Hidden(password) }
}

/** A server that relays channels, and nodes over memory links. */
export async function channelStage(options: Partial<ServerOptions> = {}): Promise<ChannelStage> {
  const cheap = cheapScrypt()
  const channels = createChannels()
  let accept: (link: Link) => void = () => {}
  const stage = { meddle: ((far) => far) as Meddle }
  const domain: DomainPlugin = {
    ...channels.domain,
    async dial(to, context) {
      const { dial } = channels.domain
      const dialled = await dial?.(to, context)
      if (!dialled || isLink(dialled)) throw new TypeError('a channel is a stream')
      return stage.meddle(dialled)
    },
  }
  const server = await createServer({
    secret: 'a secret of tests',
    domains: [domain, tcp()],
    policy: allowAll,
    channels,
    ...options,
    listen: async (onLink) => {
      accept = onLink
      const close = async (): Promise<void> => {}
      return { address: 'memory', close, [Symbol.asyncDispose]: close }
    },
  })
  const nodes: TestNode[] = []

  const node = async (id: string, settings: NodeSettings = {}): Promise<TestNode> => {
    const events: HubEvent[] = []
    const looking = new Set<() => void>()
    let links: MemoryPair | undefined
    let stunned = false
    const made = await createNode({
      ...{ id, server: 'the server', secret: 'a secret of tests', policy: allowAll },
      domains: settings.domains ?? [tcp(), udp()],
      listeners: settings.listeners ?? [],
      peerListeners: settings.offers ?? [],
      relay: channelRelay(settings.relay),
      dial: async () => {
        if (stunned) throw new ProxyError('PROXY_ERR_DIAL_FAILED', 'stunned')
        links = memoryPair()
        accept(links.b)
        return links.a
      },
      onEvent: (event) => {
        events.push(event)
        for (const look of [...looking]) look()
      },
      ...settings.options,
    })
    const told = <T extends HubEvent['type']>(type: T): EventOf<T>[] =>
      events.filter((event): event is EventOf<T> => event.type === type)
    const result: TestNode = {
      ...{ node: made, events, told },
      event: (type, take = () => true) =>
        new Promise((resolve) => {
          const look = (): void => {
            const found = told(type).find(take)
            if (!found) return
            looking.delete(look)
            resolve(found)
          }
          looking.add(look)
          look()
        }),
      bound(index = 0) {
        const bound = made.mappings.status()[index]?.bound
        if (!bound) throw new Error(`${id} does not listen`)
        return bound
      },
      cut: () => links?.cut('rst'),
      stun() {
        stunned = true
        links?.cut('rst')
      },
      [Symbol.asyncDispose]: () => made.close(),
    }
    nodes.push(result)
    await result.event('connected')
    for (const { Listen } of settings.offers ?? []) {
      await Promise.race([
        result.event('listener-ready', ({ spec }) => spec.Listen === Listen),
        result.event('listener-failed', ({ spec }) => spec.Listen === Listen),
      ])
    }
    return result
  }
  return Object.assign(stage, {
    ...{ server, channels, node },
    async [Symbol.asyncDispose]() {
      await Promise.all(nodes.map((one) => one[Symbol.asyncDispose]()))
      await server.close()
      cheap[Symbol.dispose]()
    },
  })
}

/** Somebody in the middle, who sees all that passes, and may change it or send something of their own. */
export interface Middle {
  readonly meddle: Meddle
  /** All that the joiner has sent, and all that the offerer has. */
  readonly fromJoiner: Buffer[]
  readonly fromOfferer: Buffer[]
  /** Cuts what is relayed now. */
  cut(): void
}

export type Alter = (bytes: Buffer, at: number) => Uint8Array

export function middle(alter: { fromJoiner?: Alter; fromOfferer?: Alter } = {}): Middle {
  const fromJoiner: Buffer[] = []
  const fromOfferer: Buffer[] = []
  const relayed = new Set<Duplex>()
  return {
    ...{ fromJoiner, fromOfferer },
    cut() {
      for (const one of relayed) one.destroy()
    },
    meddle(far) {
      const link = linkFrom(far)
      let [toOfferer, toJoiner] = [0, 0]
      const near = new Duplex({
        allowHalfOpen: true,
        read: () => link.resume(),
        write(chunk: Buffer, _encoding, callback) {
          fromJoiner.push(Buffer.from(chunk))
          link.write([alter.fromJoiner?.(Buffer.from(chunk), toOfferer) ?? Buffer.from(chunk)])
          toOfferer += chunk.length
          callback()
        },
        final(callback) {
          link.end()
          callback()
        },
        destroy(error, callback) {
          relayed.delete(near)
          link.destroy(error ?? undefined)
          callback(error)
        },
      })
      relayed.add(near)
      link.start({
        received(bytes) {
          fromOfferer.push(Buffer.from(bytes))
          const going = alter.fromOfferer?.(Buffer.from(bytes), toJoiner) ?? Buffer.from(bytes)
          toJoiner += bytes.length
          return near.push(going)
        },
        drained() {},
        ended: () => void near.push(null),
        closed: (error) => void near.destroy(error),
      })
      return near
    },
  }
}
