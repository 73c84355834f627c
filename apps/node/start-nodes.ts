import type { KeyObject } from 'node:crypto'
import type { DomainPlugin } from '../../lib/core/index.ts'
import { createNode, type NodeOptions } from '../../lib/create-node.ts'
import { channelRelay } from '../../lib/hub/channels.ts'
import type { HubEvent, OnEvent, SymportNode } from '../../lib/index.ts'
import type { ObservedNode } from '../../lib/node-operator.ts'
import { createPolicy } from '../../lib/policy/policy.ts'
import { tunnelPolicy } from '../../lib/policy/reach.ts'
import { logEvents } from '../common/events.ts'
import type { Logger } from '../common/log.ts'
import type { Stoppable } from '../common/until-stopped.ts'
import type { ReadyPlan } from './find-secrets.ts'
import type { Observer } from './observe.ts'

export interface StartOptions {
  /** The node's key, the same for all servers. */
  readonly identity: KeyObject
  readonly domains: readonly DomainPlugin[]
  readonly log: Logger
  readonly observer: Observer | undefined
  /** For each of them. */
  readonly options: Pick<NodeOptions, 'keepalive' | 'resumeTimeout' | 'limits' | 'heldBytes'>
}

/** Starts a node for each server: what becomes of one of them is nothing to the others. */
export async function startNodes(plans: readonly ReadyPlan[], start: StartOptions): Promise<Stoppable> {
  const several = plans.length > 1
  const tries = await Promise.allSettled(
    plans.map((plan, number) => startNode(plan, start.observer?.observed[number], { ...start, several })),
  )
  const nodes = tries.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
  const failure = tries.find((one) => one.status === 'rejected')
  if (failure) {
    await Promise.all(nodes.map((node) => node.close()))
    throw failure.reason
  }
  start.observer?.serve()
  return {
    async drain(options) {
      await Promise.all(nodes.map((node) => node.drain(options)))
    },
  }
}

async function startNode(
  { place, id, name, secret, credential, listeners, peerListeners, dial }: ReadyPlan,
  observed: ObservedNode | undefined,
  { identity, domains, log, options, several }: StartOptions & { several: boolean },
): Promise<SymportNode> {
  const told = several ? logOfOne(log, place.name) : logEvents(log, 'node', false)
  const node = await createNode({
    dial: (dialOptions) => place.dial(dialOptions),
    server: place.name,
    ...{ secret, credential, id, name, identity, listeners, peerListeners, domains },
    ...options,
    policy: createPolicy({ dial, listenPorts: 'any' }),
    relay: channelRelay({ tunnelPolicy: tunnelPolicy({ allow: dial === 'any' ? undefined : dial }) }),
    ...observed?.hooks,
    onEvent(event) {
      told(event)
      observed?.hooks.onEvent(event)
    },
  })
  observed?.started(node)
  return node
}

/** Every line says which server it is about. */
function logOfOne(log: Logger, server: string): OnEvent {
  const named = logEvents(log, 'node', false)
  const other = logEvents(log.child({ server }), 'node', false)
  // The lines about a peer name it already.
  return (event: HubEvent) => ('peer' in event ? named : other)(event)
}
