import { readFile } from 'node:fs/promises'
import { ProxyError } from '../../lib/core/index.ts'
import type { Verify, Via } from '../../lib/index.ts'
import { parseNet } from '../../lib/sockets/ip.ts'
import { parseCa, parsePin, type VerifyByCa } from '../../lib/sockets/verify.ts'
import type { OnePortOptions } from '../../lib/transports/one-port.ts'
import { parseVia } from '../../lib/transports/via-proxy.ts'
import { type Flag, type ListFlag, notEmpty, type StringFlag } from './flags.ts'

export const DEFAULT_PATH = '/symport'

/** How a node reaches its server. */
export const DIAL_FLAGS: readonly [StringFlag<'ca'>, StringFlag<'pin'>, StringFlag<'proxy'>] = [
  {
    name: 'ca',
    kind: 'string',
    value: 'FILE',
    help: 'For tls:// and wss://: the CAs to believe (PEM), instead of those that this machine trusts.',
  },
  {
    name: 'pin',
    kind: 'string',
    value: 'FINGERPRINT',
    help: 'For tls:// and wss://: the certificate to believe, or that of the CA behind it: sha256:HEX, as the server prints it.',
  },
  {
    name: 'proxy',
    kind: 'string',
    value: 'URL',
    help: 'Dial through http://USER:PASSWORD@HOST:PORT or socks5://HOST:PORT; none: not even through HTTPS_PROXY and its like.',
  },
]

/** How a server is reached. */
export const LISTEN_FLAGS: readonly [
  StringFlag<'path'>,
  StringFlag<'cert'>,
  StringFlag<'key'>,
  ListFlag<'trusted-proxies'>,
  Flag & { readonly name: 'proxy-protocol'; readonly kind: 'boolean' },
  StringFlag<'real-ip-header'>,
] = [
  { name: 'path', kind: 'string', value: 'PATH', help: `Where WebSockets come in. Default: ${DEFAULT_PATH}.` },
  {
    name: 'cert',
    kind: 'string',
    value: 'FILE',
    help: 'The certificate for TLS with its chain, in PEM; read again when it changes. Default: made by a CA of its own.',
  },
  { name: 'key', kind: 'string', value: 'FILE', help: 'The private key of --cert, in PEM.' },
  {
    name: 'trusted-proxies',
    kind: 'list',
    value: 'CIDR',
    help: "Proxies in front, which are believed when they tell a client's address: 10.0.0.0/8,::1; unix for a Unix socket.",
  },
  {
    name: 'proxy-protocol',
    kind: 'boolean',
    help: 'The trusted proxies must begin each connection with a PROXY header (v1 or v2). Default: they may.',
  },
  {
    name: 'real-ip-header',
    kind: 'string',
    value: 'NAME',
    help: "The header in which trusted proxies tell the client's address. Default: X-Forwarded-For, or else Forwarded.",
  },
]

export interface DialFlagValues {
  ca: string | undefined
  pin: string | undefined
  proxy: string | undefined
}

export interface ListenFlagValues {
  path: string | undefined
  cert: string | undefined
  key: string | undefined
  'trusted-proxies': readonly string[]
  'proxy-protocol': boolean
  'real-ip-header': string | undefined
}

/** How the links of a node travel, whatever scheme its server has. */
export interface DialSettings {
  readonly verify: Verify
  /** `undefined`: as the environment has it. `none`: without one. */
  readonly via: Via | 'none' | undefined
}

export interface ListenSettings {
  readonly cert: string | undefined
  readonly key: string | undefined
  /** What stands for `listenOnePort` as it is. */
  readonly onePort: Pick<OnePortOptions, 'path' | 'trustedProxies' | 'proxyProtocol' | 'realIpHeader'>
}

/** @throws ProxyError PROXY_ERR_USAGE */
export async function parseDialFlags(values: DialFlagValues): Promise<DialSettings> {
  const pin = notEmpty(values.pin, 'pin')
  const ca = notEmpty(values.ca, 'ca')
  const proxy = notEmpty(values.proxy, 'proxy')
  if (pin !== undefined && ca !== undefined) throw usage('--pin and --ca are both given: keep one')
  return {
    verify:
      pin !== undefined ? named('pin', () => parsePin(pin)) : ca !== undefined ? await readCa(ca) : { by: 'system' },
    via: proxy === undefined || proxy === 'none' ? proxy : named('proxy', () => parseVia(proxy)),
  }
}

/** @throws ProxyError PROXY_ERR_USAGE */
export function parseListenFlags(values: ListenFlagValues): ListenSettings {
  const cert = notEmpty(values.cert, 'cert')
  const key = notEmpty(values.key, 'key')
  if (cert !== undefined && key === undefined) throw usage('--cert is given without --key')
  if (key !== undefined && cert === undefined) throw usage('--key is given without --cert')
  const path = notEmpty(values.path, 'path') ?? DEFAULT_PATH
  if (!/^\/[^\s\p{C}?#]*$/u.test(path)) throw usage('--path: a path begins with /, and has no spaces, ? or #')
  const trustedProxies = values['trusted-proxies'].flatMap((text) => text.split(',')).map((text) => text.trim())
  for (const net of trustedProxies) {
    if (net === 'unix' || parseNet(net)) continue
    throw usage(`--trusted-proxies: ${JSON.stringify(net.slice(0, 60))} is no address and no CIDR`)
  }
  const header = notEmpty(values['real-ip-header'], 'real-ip-header')
  if (header !== undefined && !/^[!#$%&'*+.^_`|~0-9a-z-]{1,100}$/i.test(header)) {
    throw usage('--real-ip-header: that is no name of a header')
  }
  for (const [flag, given] of [
    ['proxy-protocol', values['proxy-protocol']],
    ['real-ip-header', header !== undefined],
  ] as const) {
    if (given && trustedProxies.length === 0) throw usage(`--${flag} says nothing without --trusted-proxies`)
  }
  // Not asked for, PROXY headers of trusted proxies are read and not required.
  const proxyProtocol = values['proxy-protocol'] || undefined
  return { cert, key, onePort: { path, trustedProxies, proxyProtocol, realIpHeader: header } }
}

/** @throws ProxyError PROXY_ERR_USAGE */
export async function readCa(path: string, flag = 'ca'): Promise<VerifyByCa> {
  let pem: string
  try {
    pem = await readFile(path, 'utf8')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    const why = code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'permission denied' : code
    throw new ProxyError('PROXY_ERR_USAGE', `--${flag}: cannot read ${path}: ${why}`, { cause: error })
  }
  return named(flag, () => parseCa(pem))
}

/** Says which flag it is that a parser does not like. */
function named<T>(flag: string, parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    throw usage(`--${flag}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

function usage(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message)
}
