import * as v from 'valibot'
import { parseListenerFlag, parseShort } from '../../lib/domains/short-spec.ts'
import { shown } from '../../lib/domains/text.ts'
import { parseWeb } from '../../lib/domains/web-address.ts'
import { parsePattern, parsePortRanges } from '../../lib/index.ts'
import { parseNamePattern } from '../../lib/policy/names.ts'
import { parseNet } from '../../lib/sockets/ip.ts'
import { parsePin } from '../../lib/sockets/verify.ts'
import { parseVia } from '../../lib/transports/via-proxy.ts'
import { LONGEST_DNS_WAIT, parseAcmeDirectory, parseAcmeEmail } from './acme-flags.ts'
import { parseCaddyUrl } from './caddy-flags.ts'
import { contextOf } from './config-mapping.ts'
import { count, duration, list, oneOf, port, type Role, size, text, yes } from './config-parts.ts'
import { parseDomain } from './domain.ts'
import { checkSecret } from './secret.ts'

// The keys of a configuration file that stand alone: those above all tables, and those of `[log]` and its like.

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const
const ID_BYTES = 64
const COUNTS = 1_000_000

export const ABOUT: Readonly<Record<string, string>> = {
  tls: 'Certificates.',
  http: 'The web side of the port.',
  admin: 'What the operator sees and does.',
  log: 'The log.',
  limits: 'What one peer may have here.',
  buffers: 'Memory. All that is above these waits at the sender.',
}

/** All tables of one role; each says of an unknown key which one is meant, or where it belongs. */
export function tables(role: Role): Record<string, v.ObjectEntries> {
  const server = role === 'server'
  const peer = server ? 'node' : 'server'
  const common: v.ObjectEntries = {
    role: v.optional(oneOf('Which command the file is for. Without it, the command that reads it says so.', [role])),
    $schema: v.optional(text('For editors: where the JSON Schema of this file is.')),
    port: v.optional(
      port(`The port of the server: ${server ? '0 is any free one. ' : ''}Default 925.`, server ? 0 : 1),
    ),
    uuid: v.optional(
      text('The secret both sides know. Better in a file of its own: uuid-file.', (value) =>
        checkSecret(value, '--uuid'),
      ),
    ),
    'uuid-file': v.optional(text('A file that holds the secret.')),
    state: v.optional(text('The folder for keys, secrets and what must survive a restart.')),
    allow: v.optional(
      list(`What the ${peer} may have dialled here: HOST:PORT, CIDR:PORT-PORT, *.suffix:*, unix:/path.`, parsePattern),
    ),
    'drain-timeout': v.optional(duration('How long open connections may take to finish at the end. Default 30s.')),
    'resume-timeout': v.optional(
      duration('How long open connections wait for a lost link to come back; 0s: not at all. Default 120s.'),
    ),
    keepalive: v.optional(
      duration('The other side is asked for a sign of life after this long in silence. Default 15s.', 1000),
    ),
  }
  const limits: v.ObjectEntries = {
    'sub-connections': v.optional(count(`Connections at once through one ${peer}. Default 16384.`, 16_384)),
    'pending-opens': v.optional(count('Of those, how many may wait for their target. Default 1024.', 1024)),
    'opens-per-second': v.optional(count(`Connections that one ${peer} opens in a second. Default 20000.`, COUNTS)),
    'open-timeout': v.optional(duration('How long opening a connection may take. Default 30s.', 1)),
    listeners: v.optional(count(`Listeners that one ${peer} may have here. Default 1024.`, 65_535)),
  }
  const log: v.ObjectEntries = {
    level: v.optional(oneOf('Default info.', LOG_LEVELS)),
    file: v.optional(text('Append the log to this file, as JSON lines.')),
  }
  const buffers: v.ObjectEntries = {
    window: v.optional(
      size(
        `What one ${peer} may have on its way to connections here that nobody has taken yet. Default 64MiB.`,
        65_536,
      ),
    ),
    kept: v.optional(
      size(`What is kept for one ${peer} until it is acknowledged, to be sent again. Default 32MiB.`, 65_536),
    ),
    held: v.optional(size('Both of these, all main connections together. Default 512MiB.', 1_048_576)),
  }
  if (!server) {
    return {
      '': {
        ...common,
        host: v.optional(text('The server: host, host:port or a URL. Default 127.0.0.1.')),
        server: v.optional(text('The same as host, as a URL: tcp://host:port, wss://host/symport.')),
        id: v.optional(text('What this node calls itself. Default: the name of this machine.', checkId)),
        proxy: v.optional(proxyText()),
        ...shortLists(),
      },
      tls: { ca: v.optional(caText()), pin: v.optional(pinText()) },
      admin: { listen: v.optional(text('Where the API of the node is served over TCP: host:port.')) },
      log,
      limits,
      buffers,
    }
  }
  return {
    '': {
      ...common,
      host: v.optional(text('Where nodes connect: host, host:port, tcp:// or unix://. Default 0.0.0.0.')),
      balance: v.optional(yes('Share new connections out among the nodes, instead of the first one serving.')),
      'allow-ports': v.optional(
        list('Ports that nodes may have listened on here: 9000-9999,22.', (value) => parsePortRanges(value)),
      ),
      'allow-names': v.optional(
        list('Names of the web port that nodes may have: app.example.com, *.example.com, /path, or *.', (value) =>
          parseNamePattern(value, parseWeb),
        ),
      ),
      domain: v.optional(
        text('The name below which nodes get names of the web port, or the URL where visitors find it.', parseDomain),
      ),
      'enrolled-only': v.optional(yes('Only nodes with a credential of their own: the shared secret is off.')),
      'on-duplicate': v.optional(
        oneOf('What happens when a second process connects with the same id. Default allow.', [
          'allow',
          'refuse',
          'replace',
        ]),
      ),
    },
    tls: {
      cert: v.optional(text('The certificate and those above it, in PEM.')),
      key: v.optional(text('Its private key, in PEM.')),
      'acme-email': v.optional(
        text(
          'Whom a public CA knows you as, which then gives a certificate for each name. Agrees to its terms.',
          parseAcmeEmail,
        ),
      ),
      'acme-directory': v.optional(
        text(
          "That CA: letsencrypt (the default), letsencrypt-staging, or its directory's https:// URL.",
          parseAcmeDirectory,
        ),
      ),
      'acme-ca': v.optional(text('The certificates to believe when that directory is asked, in PEM.')),
      'acme-eab-kid': v.optional(text('The id of the account that you have at a CA which wants one.')),
      'acme-eab-hmac-file': v.optional(text('A file with the key of that account.')),
      'acme-dns-hook': v.optional(
        text('A program that writes records into the DNS, for one certificate of all names directly below the domain.'),
      ),
      'acme-dns-wait': v.optional(
        duration(
          'How long after it the CA is to look. Default: until all name servers have the record.',
          0,
          LONGEST_DNS_WAIT,
        ),
      ),
    },
    http: {
      path: v.optional(
        text('Where WebSocket links come in. Default /symport.', (value) => {
          if (!/^\/[^\s\p{C}?#]*$/u.test(value)) throw new Error('a path begins with /, and has no spaces, ? or #')
        }),
      ),
      'trusted-proxies': v.optional(
        list('Proxies in front, which are believed when they tell the address of a client: CIDR.', checkNets),
      ),
      'real-ip-header': v.optional(
        text('The header in which they tell it, if neither X-Forwarded-For nor Forwarded.', (value) => {
          if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$/.test(value))
            throw new Error(`${shown(value)} is not a header's name`)
        }),
      ),
      'proxy-protocol': v.optional(yes('The trusted proxies begin each connection with a PROXY header (v1 or v2).')),
      caddy: v.optional(
        text('The admin API of a Caddy that serves the names: http://127.0.0.1:2019, unix:///path.', parseCaddyUrl),
      ),
      'caddy-server': v.optional(text("Which HTTP server of Caddy's config that is. Default: the only one.")),
    },
    admin: {
      listen: v.optional(text('Where the API is served over TCP, besides its Unix socket: host:port.')),
      webhook: v.optional(
        text('A URL that is told when a node goes and comes.', (value) => {
          if (!URL.canParse(value) || !/^https?:\/\//i.test(value)) throw new Error('write a http:// or https:// URL')
        }),
      ),
    },
    log,
    limits: {
      ...limits,
      'max-handshakes': v.optional(count('Handshakes at once. Default 1024.', COUNTS)),
      'handshakes-per-address': v.optional(count('Of those, how many from one address. Default 64.', COUNTS)),
      'max-sessions': v.optional(count('Main connections at once. Default 4096.', COUNTS)),
    },
    buffers,
  }
}

export function proxyText(): v.GenericSchema<string> {
  return text('The proxy to dial through: http://host:port, socks5://host:port, or none.', (value) => {
    if (value !== 'none') parseVia(value)
  })
}

export function caText(): v.GenericSchema<string> {
  return text("A file with the certificates of the authorities to believe, instead of the system's.")
}

export function pinText(): v.GenericSchema<string> {
  return text('The certificate to believe, or that of the CA behind it: sha256:HEX.', parsePin)
}

/** What -D, -L and -R take, as lists of texts. */
export function shortLists(): v.ObjectEntries {
  const context = contextOf('node', 'local')
  return {
    dynamic: v.optional(
      list('Proxies here: socks5://[CHANNEL:PASSWORD@][bind]:port, http://, mixed://, or [bind:]port.', (value) =>
        parseShort(value, 'dynamic', context),
      ),
    ),
    local: v.optional(
      list('This side listens, and joins a channel: tcp://CHANNEL:PASSWORD@[bind]:port; or a SPEC.', (value) =>
        parseListenerFlag(value, 'local', context),
      ),
    ),
    remote: v.optional(
      list(
        'What is offered at the server: tcp://CHANNEL:PASSWORD@host:port, tunnel://CHANNEL:PASSWORD@, http://host:port?mode=path&value=NAME; or a SPEC.',
        (value) => parseListenerFlag(value, 'remote', context),
      ),
    ),
  }
}

export function checkId(id: string): void {
  if (Buffer.byteLength(id) > ID_BYTES || /[\p{C}\p{Z}]/u.test(id)) {
    throw new Error(`an id has 1 to ${ID_BYTES} bytes, and no spaces`)
  }
}

function checkNets(text: string): void {
  const wrong = text.split(',').find((net) => !parseNet(net.trim()))
  if (wrong !== undefined) throw new Error(`${shown(wrong)} is no address and no CIDR`)
}
