import * as v from 'valibot'
import { NetSet } from '../sockets/ip.ts'

/** How much may go through: `in` is from visitors towards the target, `out` is back. */
export interface FlowLimits {
  /** Bytes per second. */
  readonly in?: number | undefined
  readonly out?: number | undefined
  /** Connections that are open at once. */
  readonly connections?: number | undefined
  /** New connections per second. */
  readonly rate?: number | undefined
}

/** The limits of one mapping, or of one node over all that goes through it. What is left out has none. */
export interface TrafficLimits extends FlowLimits {
  /** Bytes in a calendar month (UTC), both directions together. */
  readonly quota?: number | undefined
  /** Of each visitor: an IPv4 address, or a /64 of IPv6. */
  readonly visitor?: FlowLimits | undefined
  /** Addresses and CIDRs of those who may come. Default: all. */
  readonly allow?: readonly string[] | undefined
  /** Those who may not, also where `allow` has them. */
  readonly deny?: readonly string[] | undefined
}

/** Why somebody was refused by limits. */
export type LimitKind = 'denied' | 'quota' | 'connections' | 'visitor-connections' | 'rate' | 'visitor-rate'

/** How many, of each kind; without those of which there was none. */
export type Refusals = { [kind in LimitKind]?: number }

const MOST_NETS = 10_000

const count = (least: number, what: string) => {
  const text = `${what}, ${least} or more`
  return v.optional(v.pipe(v.number(text), v.safeInteger(text), v.minValue(least, text)))
}
const net = v.pipe(
  v.string('an address or a CIDR, in quotes'),
  v.check(isNet, 'an address or a CIDR, as 192.0.2.0/24 or 2001:db8::/32'),
)
const nets = v.pipe(v.array(net, 'a list of addresses and CIDRs'), v.maxLength(MOST_NETS))
const flow = {
  in: count(1, 'bytes per second'),
  out: count(1, 'bytes per second'),
  connections: count(1, 'a whole number of connections'),
  rate: count(1, 'a whole number of connections per second'),
}

/** The shape of `TrafficLimits`. */
export const TRAFFIC_LIMITS: v.GenericSchema<unknown, TrafficLimits> = v.strictObject({
  ...flow,
  quota: count(1, 'bytes per month'),
  visitor: v.optional(v.strictObject(flow)),
  // An empty one lets nobody in, and looks as if it let everybody in.
  allow: v.optional(v.pipe(nets, v.minLength(1, 'who may come; leave it out for all'))),
  deny: v.optional(nets),
})

function isNet(text: string): boolean {
  try {
    new NetSet([text])
    return true
  } catch {
    return false
  }
}
