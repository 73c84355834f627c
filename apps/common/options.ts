import { type DomainPlugin, type Keepalive, ProxyError } from '../../lib/core/index.ts'
import { httpProxy } from '../../lib/domains/http-proxy.ts'
import { mixed } from '../../lib/domains/mixed.ts'
import { parseListenerFlag, parseShort } from '../../lib/domains/short-spec.ts'
import { socks5 } from '../../lib/domains/socks5.ts'
import { parseSpec } from '../../lib/domains/spec.ts'
import { tcp } from '../../lib/domains/tcp.ts'
import { tls } from '../../lib/domains/tls.ts'
import { udp } from '../../lib/domains/udp.ts'
import { unix } from '../../lib/domains/unix.ts'
import type { Pattern, Spec } from '../../lib/index.ts'
import { parsePattern } from '../../lib/policy/patterns.ts'
import { type ListFlag, type StringFlag, toDuration } from './flags.ts'
import { LOG_FLAGS } from './log.ts'
import { SECRET_FLAGS } from './secret.ts'

const DEFAULT_DRAIN = 30_000
const SHORTEST_KEEPALIVE = 1000

export const COMMON_FLAGS: readonly [
  ...typeof SECRET_FLAGS,
  StringFlag<'state'>,
  ListFlag<'allow'>,
  StringFlag<'drain-timeout'>,
  StringFlag<'resume-timeout'>,
  StringFlag<'keepalive'>,
  ...typeof LOG_FLAGS,
] = [
  ...SECRET_FLAGS,
  { name: 'state', kind: 'string', value: 'DIR', help: 'The folder for keys and secrets.' },
  {
    name: 'allow',
    kind: 'list',
    value: 'PATTERN',
    help: 'What the other side may have dialled here, by TCP or UDP: HOST:PORT, CIDR:PORT-PORT, *.suffix:*, unix:/path.',
  },
  {
    name: 'drain-timeout',
    kind: 'string',
    value: 'TIME',
    help: 'How long open connections may take to finish at the end. Default: 30s.',
  },
  {
    name: 'resume-timeout',
    kind: 'string',
    value: 'TIME',
    help: 'How long open connections wait for a lost link to come back; 0s: not at all. Default: 120s.',
  },
  {
    name: 'keepalive',
    kind: 'string',
    value: 'TIME',
    help: 'The other side is asked for a sign of life after this long in silence; 10 s later the link is lost. Default: 15s.',
  },
  ...LOG_FLAGS,
]

/** How long things may take, in ms. */
export function parseTimes(values: {
  'drain-timeout': string | undefined
  'resume-timeout': string | undefined
  keepalive: string | undefined
}): { drainTimeout: number; resumeTimeout: number | undefined; keepalive: Keepalive | undefined } {
  const parse = (name: keyof typeof values): number | undefined => {
    const value = values[name]
    return value === undefined ? undefined : toDuration(value, name)
  }
  const idle = parse('keepalive')
  if (idle !== undefined && idle < SHORTEST_KEEPALIVE) {
    throw new ProxyError('PROXY_ERR_USAGE', '--keepalive: at least 1s')
  }
  return {
    drainTimeout: parse('drain-timeout') ?? DEFAULT_DRAIN,
    resumeTimeout: parse('resume-timeout'),
    keepalive: idle === undefined ? undefined : { idle, timeout: 10_000 },
  }
}

export interface DomainSettings {
  /** Hears what is not wrong, and should be known: whose certificate is not looked at, who else can read a password. */
  readonly onWarning?: ((text: string) => void) | undefined
}

/** What can be listened on and forwarded to at either side. A server has more of it. A new domain is one more line. */
export function createDomains(settings: DomainSettings = {}): DomainPlugin[] {
  return [tcp(), udp(), unix(), socks5(settings), httpProxy(settings), mixed(settings), tls(settings)]
}

/**
 * The SPECs of `--listener` (`local`: this side listens) or `--peer_listener` (`remote`), whose other half may be of any
 * domain there is, or one URL. Without `use`, both halves are for this side.
 */
export function parseSpecs(
  texts: readonly string[],
  domains: readonly DomainPlugin[],
  use?: 'local' | 'remote' | undefined,
): Spec[] {
  return texts.map((text) =>
    use === undefined ? parseSpec(text, { domains }) : parseListenerFlag(text, use, { domains }),
  )
}

/** What `-D` takes: `[bind:]port`, or the URL of a proxy. */
export function parseDynamic(texts: readonly string[], domains: readonly DomainPlugin[]): Spec[] {
  return texts.map((text) => parseShort(text, 'dynamic', { domains }))
}

export function parsePatterns(texts: readonly string[]): Pattern[] {
  return texts.map((text) => parsePattern(text))
}
