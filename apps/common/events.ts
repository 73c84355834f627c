import { type Endpoint, formatEndpoint } from '../../lib/core/index.ts'
import type { HubEvent, OnEvent } from '../../lib/index.ts'
import type { LimitKind } from '../../lib/policy/traffic-limits.ts'
import type { Logger } from './log.ts'

const WHY_LIMITED: Readonly<Record<LimitKind, string>> = {
  denied: 'not for that address',
  quota: 'the bytes of this month are used up',
  connections: 'too many connections',
  'visitor-connections': 'too many connections of one address',
  rate: 'too many new connections per second',
  'visitor-rate': 'too many new connections per second of one address',
}

/** Lines about strangers in one minute. */
const LINES = 20

/** Writes what happens into the log. `side` is this one; the peer is the other. */
export function logEvents(log: Logger, side: 'server' | 'node', hasListeners: boolean): OnEvent {
  const peer = side === 'server' ? 'node' : 'server'
  const quiet = onceAMinute()
  const rejected = someAMinute((more) => log.warn(`refused ${more} more connections in the last minute`))
  return (event: HubEvent): void => {
    switch (event.type) {
      case 'listening':
        log.info({ address: event.address }, 'listening')
        break
      case 'connected':
        log.info(
          { [peer]: event.peer.id, address: event.peer.remote },
          side === 'server' ? 'node connected' : 'connected',
        )
        if (side === 'server' && event.standby && hasListeners) {
          log.warn(
            { node: event.peer.id },
            'node stands by: the first one serves the listeners (--balance shares them out)',
          )
        }
        break
      case 'draining':
        log.info({ [peer]: event.peer.id }, `${peer} is about to stop`)
        break
      case 'paused':
        log.warn(
          { [peer]: event.peer.id, code: event.reason.code },
          `lost the link to the ${peer}, open connections wait: ${event.reason.message}`,
        )
        break
      case 'resumed':
        log.info(
          { [peer]: event.peer.id, address: event.peer.remote, pause: Math.round(event.pause) },
          'goes on with a new link: nothing is lost',
        )
        break
      case 'disconnected':
        log.info(
          { [peer]: event.peer.id, code: event.reason.code, reason: event.reason.message },
          `${peer} disconnected`,
        )
        break
      case 'rejected':
        rejected(() => {
          log.warn(
            { address: event.remote, code: event.reason.code, reason: event.reason.message },
            'refused a connection',
          )
        })
        break
      case 'retrying':
        log[event.reason.code === 'PROXY_ERR_REFUSED' ? 'error' : quiet(event.reason.message) ? 'debug' : 'warn'](
          { code: event.reason.code, delay: Math.round(event.delay) },
          `${event.reason.message}; trying again${event.delay > 2000 ? ` in ${Math.round(event.delay / 1000)} s` : ''}`,
        )
        break
      case 'listener-ready':
        log.info({ listen: formatEndpoint(event.bound), ...about(event) }, 'listener ready')
        break
      case 'listening-for':
        log.info({ listen: formatEndpoint(event.bound), [peer]: event.peer.id }, `listener ready for the ${peer}`)
        break
      case 'listener-failed':
        log.error(
          { listen: formatEndpoint(event.spec.Listen), ...about(event), code: event.reason.code },
          event.at === 'here' ? event.reason.message : `the ${peer} refused: ${event.reason.message}`,
        )
        break
      case 'unserved':
        log.warn(
          { from: event.from, forward: formatEndpoint(event.spec.Forward), code: event.reason.code },
          event.reason.message,
        )
        break
      case 'limited':
        log.warn(
          { ...(event.mapping === undefined ? { node: event.node } : { mapping: event.mapping }), from: event.from },
          `${event.count === 1 ? 'refused a visitor' : `refused ${event.count} more visitors`}: ${WHY_LIMITED[event.kind]}`,
        )
        break
      case 'duplicate':
        log.warn(
          { [peer]: event.peer.id, address: event.peer.remote, others: event.others.map(({ remote }) => remote) },
          `${event.others.length + 1} instances of this ${peer} are connected (--on-duplicate)`,
        )
        break
      case 'mapping':
        log.info({ mapping: event.mapping, listen: formatEndpoint(event.spec.Listen) }, `mapping ${event.change}`)
        break
      case 'health':
        log[event.healthy ? 'info' : 'warn'](
          { mapping: event.mapping, [peer]: event.peer.id, forward: formatEndpoint(event.spec.Forward) },
          event.healthy ? 'the target is well again' : `the target is not well: ${event.problem}`,
        )
        break
      case 'channel-failed':
        log.warn(
          { channel: event.channel, [peer]: event.peer.id, code: event.reason.code },
          `could not be joined: ${event.reason.message}`,
        )
        break
      case 'channel-readable':
        log.warn(
          { channel: event.channel, [peer]: event.peer.id },
          `channel ${event.channel} has no password: whoever runs the server can read it`,
        )
        break
      case 'refused': {
        const there = event.inside ? 'other end' : peer
        log.warn(
          {
            [peer]: event.peer.id,
            request: event.request,
            by: event.by === 'here' ? side : there,
            code: event.reason.code,
          },
          `${event.by === 'here' ? 'refused' : `the ${there} refused`}: ${event.reason.message}`,
        )
        break
      }
    }
  }
}

function about({ spec, at }: { spec: { Forward: Endpoint }; at: 'here' | { id: string } }): Record<string, string> {
  return { forward: formatEndpoint(spec.Forward), ...(at === 'here' ? {} : { at: at.id }) }
}

/** Answers whether `text` was told less than a minute ago: a server may be away for days. */
function onceAMinute(): (text: string) => boolean {
  const told = new Map<string, number>()
  return (text) => {
    const now = Date.now()
    for (const [old, at] of told) if (now - at > 60_000) told.delete(old)
    if (told.has(text)) return true
    told.set(text, now)
    return false
  }
}

/** Strangers come in floods: 20 lines a minute, then a number. */
function someAMinute(summarise: (more: number) => void): (tell: () => void) => void {
  let since = Number.NEGATIVE_INFINITY
  let count = 0
  return (tell) => {
    const now = Date.now()
    if (now - since > 60_000) {
      if (count > LINES) summarise(count - LINES)
      since = now
      count = 0
    }
    count++
    if (count <= LINES) tell()
  }
}
