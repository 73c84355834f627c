import type { Patch } from '../../lib/hub/merge-patch.ts'
import type { FlowLimits, TrafficLimits } from '../../lib/policy/traffic-limits.ts'
import { parseNet } from '../../lib/sockets/ip.ts'
import { assertNoNone, type ChangeValues, given, listOrNone, orNone, settled, usage } from './change-flags.ts'
import type { ListFlag, StringFlag } from './flags.ts'
import { toRate, toSize } from './sizes.ts'

// Limits of mappings and of nodes, as flags.

export const LIMIT_FLAGS: readonly [
  StringFlag<'limit-in'>,
  StringFlag<'limit-out'>,
  StringFlag<'connections'>,
  StringFlag<'rate'>,
  StringFlag<'quota'>,
  StringFlag<'visitor-limit-in'>,
  StringFlag<'visitor-limit-out'>,
  StringFlag<'visitor-connections'>,
  StringFlag<'visitor-rate'>,
  ListFlag<'allow-from'>,
  ListFlag<'deny-from'>,
] = [
  {
    name: 'limit-in',
    kind: 'string',
    value: 'RATE',
    help: 'Bytes per second from visitors: 1MB/s, 500KiB/s, 10Mbit/s.',
  },
  { name: 'limit-out', kind: 'string', value: 'RATE', help: 'The same to visitors.' },
  { name: 'connections', kind: 'string', value: 'N', help: 'Connections that are open at once.' },
  { name: 'rate', kind: 'string', value: 'N', help: 'New connections per second.' },
  { name: 'quota', kind: 'string', value: 'SIZE', help: 'Bytes in a calendar month (UTC), both ways together: 50GB.' },
  { name: 'visitor-limit-in', kind: 'string', value: 'RATE', help: 'What one visitor may have of --limit-in.' },
  { name: 'visitor-limit-out', kind: 'string', value: 'RATE', help: 'What one visitor may have of --limit-out.' },
  { name: 'visitor-connections', kind: 'string', value: 'N', help: 'Connections that one visitor may have open.' },
  { name: 'visitor-rate', kind: 'string', value: 'N', help: 'New connections per second of one visitor.' },
  { name: 'allow-from', kind: 'list', value: 'CIDR', help: 'Addresses of those who may come. Default: all.' },
  {
    name: 'deny-from',
    kind: 'list',
    value: 'CIDR',
    help: 'Addresses of those who may not come, also where --allow-from has them.',
  },
]

export type LimitValues = ChangeValues<typeof LIMIT_FLAGS>

/**
 * What the flags say: `null` for `none`. Undefined if they say nothing.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function readLimitFlags(values: LimitValues): Patch<TrafficLimits> | undefined {
  const rate = (name: 'limit-in' | 'limit-out' | 'visitor-limit-in' | 'visitor-limit-out') =>
    orNone(values[name], (text) => toRate(text, `--${name}`))
  const number = (name: 'connections' | 'rate' | 'visitor-connections' | 'visitor-rate') =>
    orNone(values[name], (text) => toCount(text, name))
  const visitor: Patch<FlowLimits> = given({
    in: rate('visitor-limit-in'),
    out: rate('visitor-limit-out'),
    connections: number('visitor-connections'),
    rate: number('visitor-rate'),
  })
  const limits = given({
    in: rate('limit-in'),
    out: rate('limit-out'),
    connections: number('connections'),
    rate: number('rate'),
    quota: orNone(values.quota, (text) => toSize(text, '--quota')),
    visitor: Object.keys(visitor).length === 0 ? undefined : visitor,
    allow: listOrNone(values['allow-from'], 'allow-from', toNets('allow-from')),
    deny: listOrNone(values['deny-from'], 'deny-from', toNets('deny-from')),
  })
  return Object.keys(limits).length === 0 ? undefined : limits
}

/**
 * The same for a new thing, of which there is nothing to take away.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export async function newLimits(values: LimitValues): Promise<TrafficLimits | undefined> {
  assertNoNone(values, LIMIT_FLAGS)
  const limits = readLimitFlags(values)
  if (!limits) return undefined
  const { TRAFFIC_LIMITS } = await import('../../lib/policy/traffic-limits.ts')
  return await settled(TRAFFIC_LIMITS, limits)
}

function toCount(text: string, name: string): number {
  if (/^[1-9][0-9]{0,8}$/.test(text)) return Number(text)
  throw usage(`--${name}: ${JSON.stringify(text.slice(0, 40))} is no whole number from 1 up`)
}

function toNets(name: string): (list: readonly string[]) => readonly string[] {
  return (list) => {
    const bad = list.find((text) => parseNet(text) === undefined)
    if (bad === undefined) return list
    throw usage(`--${name}: ${JSON.stringify(bad.slice(0, 40))} is no address or CIDR: write 192.0.2.7 or 192.0.2.0/24`)
  }
}
