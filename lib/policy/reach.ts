import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'
import type { Endpoint } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import type { Policy } from '../core/policy.ts'
import { type Ip, type IpNet, isIn, parseIp, parseNet } from '../sockets/ip.ts'
import type { NameRules } from './names.ts'
import type { Pattern, PortRange } from './patterns.ts'
import { createPolicy } from './policy.ts'
import { resolvedName, targetOf } from './target.ts'

export type Interfaces = NodeJS.Dict<NetworkInterfaceInfo[]>

export interface TunnelReach {
  /** What may be dialled, instead of the LAN. */
  readonly allow?: readonly Pattern[] | undefined
  /** Default: those of this machine at the moment of the question; networks come and go. */
  readonly interfaces?: (() => Interfaces) | undefined
}

export interface WspReach {
  /** What may be dialled, instead of all that is not this machine's own; of that, only what a pattern says. */
  readonly allow?: readonly Pattern[] | undefined
  /** Ports that may be listened on. Default: none, as wsp has none. */
  readonly listenPorts?: readonly PortRange[] | undefined
  readonly names: NameRules
}

/** Only this machine or its cable is there, nobody in particular, or who tells a machine of a cloud its secrets. */
const NEVER = nets(
  '0.0.0.0/8',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '224.0.0.0/4',
  '255.255.255.255',
  '::',
  '::1',
  'fe80::/10',
  'ff00::/8',
  // Metadata: Alibaba, Azure, Oracle, AWS, Google, Oracle, Scaleway. That of most others is link-local.
  '100.100.100.200',
  '168.63.129.16',
  '192.0.0.192',
  'fd00:ec2::/32',
  'fd20:ce::254',
  'fd00:c1::a9fe:a9fe',
  'fd00:42::42',
  // Where the IPv4 address stands in these (RFC 8215) is known to who runs the translator only.
  '64:ff9b:1::/48',
)
/** RFC 1918 and RFC 4193. */
const PRIVATE = nets('10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7')
/** An interface in a larger network than these says nothing about what is near. */
const LARGEST = { 4: 8, 6: 32 } as const
/** Ways to write an IPv4 address as an IPv6 one, and how many bits stand behind it: RFC 6052, 3056, 4291, 7915. */
const AROUND_IPV4: readonly (readonly [IpNet, bigint])[] = [
  ['64:ff9b::/96', 0n] as const,
  ['2002::/16', 80n] as const,
  ['::/96', 0n] as const,
  ['::ffff:0:0:0/96', 0n] as const,
].flatMap(([net, behind]) => nets(net).map((one) => [one, behind] as const))
/** What a client of a tunnel can name. */
const REQUESTED: readonly string[] = ['tcp', 'udp']
const DIALLED: readonly string[] = ['tcp', 'udp', 'tls']

/**
 * What others reach through the tunnel that this node offers: what `allow` says, or else its LAN, which is all private
 * addresses and the networks that its interfaces are on. This machine's own addresses there are part of it: what listens
 * on them is there for the LAN, and a user of the tunnel expects to reach the machine that offers it. What listens on
 * loopback is not.
 */
export function tunnelPolicy({ allow, interfaces = networkInterfaces }: TunnelReach = {}): Policy {
  const allowed = allow && createPolicy({ dial: allow, listenPorts: 'none' })
  return {
    dial(to, address) {
      const ip = REQUESTED.includes(to.Domain) ? dialled(to, address) : undefined
      if (ip !== undefined && allowed) return allowed.dial(to, format(ip, address))
      if (ip !== undefined && isLan(ip, interfaces)) return
      const why = allow ? 'see --allow' : 'without --allow it is the LAN of that node'
      throw denied(`${resolvedName(to, address)} is not reached through this tunnel (${why})`)
    },
    listen() {
      throw new ProxyError('PROXY_ERR_LISTEN_DENIED', 'nothing is listened on at the far end of a tunnel')
    },
  }
}

/**
 * What the nodes of a server may have that was started from a file of wsp: dial what wsp lets them, but for the server's
 * own addresses, which wsp forgot. With `allow`, what that says instead; also of these, if it is an address, a network or
 * a name that says so: `*` and `*.suffix` are about all others.
 */
export function wspPolicy({ allow, listenPorts = [], names }: WspReach): Policy {
  const { dial, listen } = createPolicy({ dial: allow ?? 'none', listenPorts, names })
  const own = allow && createPolicy({ dial: allow.filter(saysWhich), listenPorts: 'none' })
  return {
    dial(to, address) {
      if (to.Domain === 'unix') return dial(to)
      const ip = DIALLED.includes(to.Domain) ? dialled(to, address) : undefined
      if (ip !== undefined && own) return (isNever(ip) ? own.dial : dial)(to, format(ip, address))
      if (ip !== undefined && !isNever(ip)) return
      const why = allow ? 'see --allow' : 'the server\'s own addresses need "allow" in its file'
      throw denied(`${resolvedName(to, address)} is not allowed here (${why})`)
    },
    listen,
  }
}

/** What holds for the nodes, on one line of the log; without `names`, all names of the web port are theirs. */
export function wspReachText(allow: readonly string[] | undefined, names: readonly string[] = []): string {
  const dial =
    allow === undefined
      ? 'dial all but loopback, link-local and metadata addresses of this server ("allow" changes that)'
      : allow.length === 0
        ? 'dial nothing ("allow" is empty)'
        : `dial ${some(allow)}, and nothing else${allow.some(isWide) ? ` (${WIDE})` : ''}`
  const take = names.length === 0 ? 'take names of the web port' : `take names of the web port as ${some(names)}`
  return `as in wsp, nodes may ${dial}, register channels, and ${take}`
}

const WIDE = '* is without loopback, link-local and metadata addresses of this server'

function isWide(pattern: string): boolean {
  return /^\s*\*/.test(pattern)
}

function saysWhich(pattern: Pattern): boolean {
  return pattern.kind === 'unix' || pattern.host.kind === 'net' || pattern.host.kind === 'name'
}

function some(patterns: readonly string[]): string {
  const more = patterns.length > 10 ? ` and ${patterns.length - 10} more` : ''
  return `${patterns.slice(0, 10).join(', ')}${more}`
}

/** The address that is dialled, as IPv4 if it only stands in an IPv6 one; undefined where there is none. */
function dialled(to: Endpoint, address: string | undefined): Ip | undefined {
  const target = targetOf(to, address)
  if (target?.port === undefined || target.port === 0) return undefined
  // A zone names an interface, and only link-local addresses have one.
  const ip = parseIp(address ?? target.host)
  return ip && inner(ip)
}

function inner(ip: Ip): Ip {
  if (ip.version === 4 || ip.value <= 1n) return ip
  const [, behind] = AROUND_IPV4.find(([net]) => isIn(net, ip)) ?? []
  return behind === undefined ? ip : { version: 4, value: (ip.value >> behind) & 0xffff_ffffn }
}

function isNever(ip: Ip): boolean {
  return NEVER.some((net) => isIn(net, ip))
}

function isLan(ip: Ip, interfaces: () => Interfaces): boolean {
  if (isNever(ip)) return false
  return PRIVATE.some((net) => isIn(net, ip)) || networksOf(interfaces()).some((net) => isIn(net, ip))
}

function networksOf(interfaces: Interfaces): IpNet[] {
  return Object.values(interfaces).flatMap((addresses = []) =>
    addresses.flatMap(({ internal, cidr }) => {
      const net = internal || cidr === null ? undefined : parseNet(cidr)
      return net !== undefined && net.prefix >= LARGEST[net.version] ? [net] : []
    }),
  )
}

/** What the patterns are asked about. */
function format(ip: Ip, address: string | undefined): string | undefined {
  if (ip.version === 6) return address
  return [24n, 16n, 8n, 0n].map((shift) => (ip.value >> shift) & 0xffn).join('.')
}

function nets(...texts: readonly string[]): IpNet[] {
  return texts.flatMap((text) => parseNet(text) ?? [])
}

function denied(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_DIAL_DENIED', message)
}
