import * as v from 'valibot'
import type { FlowLimits, TrafficLimits } from '../../lib/policy/traffic-limits.ts'
import { NetSet } from '../../lib/sockets/ip.ts'
import { checked, count, either, list, table, unknownIn } from './config-parts.ts'
import { RATE_PATTERN, SIZE_PATTERN, toRate, toSize } from './sizes.ts'

// The limits of a mapping, and of each node, as a file has them: with sizes for people.

export interface FileFlow {
  readonly in?: string | number | undefined
  readonly out?: string | number | undefined
  readonly connections?: number | undefined
  readonly rate?: number | undefined
}

export interface FileLimits extends FileFlow {
  readonly quota?: string | number | undefined
  readonly visitor?: FileFlow | undefined
  readonly allow?: string | readonly string[] | undefined
  readonly deny?: string | readonly string[] | undefined
}

const MOST = 1_000_000_000

/** The schema of such a table. */
export function limitsSchema(about: string): v.GenericSchema<FileLimits> {
  const flow = {
    in: v.optional(amount('Bytes per second from visitors: "1MB/s", "10Mbit/s".', RATE_PATTERN, toRate, '1MB/s')),
    out: v.optional(amount('Bytes per second to visitors.', RATE_PATTERN, toRate, '1MB/s')),
    connections: v.optional(count('Connections that are open at once.', MOST)),
    rate: v.optional(count('New connections per second.', MOST)),
  }
  const entries = {
    ...flow,
    quota: v.optional(amount('Bytes in a month, both ways together: "50GB".', SIZE_PATTERN, toSize, '50GB')),
    visitor: v.optional(table('What of it one visitor may have.', flow, unknownIn(Object.keys(flow)))),
    allow: v.optional(list('Who may come: addresses and CIDRs. Default: all.', checkNet)),
    deny: v.optional(list('Who may not, also where allow has them.', checkNet)),
  }
  return table(about, entries, unknownIn(Object.keys(entries)))
}

/** What a file whose shape has been checked says. */
export function readLimits({ quota, visitor, allow, deny, ...flow }: FileLimits): TrafficLimits {
  return {
    ...readFlow(flow),
    ...(quota === undefined ? {} : { quota: toSize(String(quota), '') }),
    ...(visitor === undefined ? {} : { visitor: readFlow(visitor) }),
    ...(allow === undefined ? {} : { allow: [allow].flat() }),
    ...(deny === undefined ? {} : { deny: [deny].flat() }),
  }
}

function readFlow({ in: inward, out, connections, rate }: FileFlow): FlowLimits {
  return {
    ...(inward === undefined ? {} : { in: toRate(String(inward), '') }),
    ...(out === undefined ? {} : { out: toRate(String(out), '') }),
    ...(connections === undefined ? {} : { connections }),
    ...(rate === undefined ? {} : { rate }),
  }
}

function amount(
  about: string,
  pattern: RegExp,
  read: (text: string, what: string) => number,
  example: string,
): v.GenericSchema<string | number> {
  const advice = `write a text like "${example}", or a number of bytes`
  return v.pipe(
    either(
      // The pattern is for editors: what is wrong is said by whoever reads it.
      v.pipe(
        v.string(advice),
        checked((value: string) => read(value, '')),
        v.regex(pattern, advice),
      ),
      v.pipe(v.number(advice), v.integer(advice), v.minValue(1, 'at least 1'), v.maxValue(Number.MAX_SAFE_INTEGER)),
      (value) => typeof value === 'number',
    ),
    v.description(about),
    v.examples([example]),
  )
}

/** @throws ProxyError if it is neither an address nor a CIDR */
function checkNet(net: string): void {
  new NetSet([net])
}
