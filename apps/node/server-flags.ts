import type { StringFlag } from '../common/flags.ts'
import { DEFAULT_PORT } from '../common/transports.ts'

/** Which server it is, and what this node is called there. */
export const SERVER_FLAGS: readonly [StringFlag<'host'>, StringFlag<'port'>, StringFlag<'server'>, StringFlag<'id'>] = [
  {
    name: 'host',
    kind: 'string',
    value: 'HOST',
    help: 'The server: host, host:port or a URL. Default: that of "symport login", else 127.0.0.1.',
  },
  { name: 'port', kind: 'string', value: 'PORT', help: `Default: ${DEFAULT_PORT}.` },
  {
    name: 'server',
    kind: 'string',
    value: 'URL',
    help: 'The same as --host, as a URL: tcp://host:port, tls://host:port, wss://host/symport, ws:// or unix:///path.',
  },
  {
    name: 'id',
    kind: 'string',
    value: 'NAME',
    help: 'What this node calls itself. Default: the name of this machine.',
  },
]
