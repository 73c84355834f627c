import { deriveCredential } from '../../lib/core/index.ts'
import { readSecret } from '../../lib/store/secrets.ts'
import { ACME_FLAGS, parseAcmeFlags } from '../common/acme-flags.ts'
import { CADDY_FLAGS, parseCaddyFlags } from '../common/caddy-flags.ts'
import { command, noPositionals, type Runnable } from '../common/command.ts'
import { applyConfig, CONFIG_FLAG } from '../common/config-flag.ts'
import { parseDomain } from '../common/domain.ts'
import { notEmpty, toPort } from '../common/flags.ts'
import { stateFolder } from '../common/identity.ts'
import { checkLogLevel, createLog, type Logger } from '../common/log.ts'
import { COMMON_FLAGS, parseSpecs, parseTimes } from '../common/options.ts'
import { givenSecret } from '../common/secret.ts'
import { LISTEN_FLAGS, parseListenFlags } from '../common/transport-flags.ts'
import { DEFAULT_PORT, parsePlace } from '../common/transports.ts'
import { OPERATOR_FLAGS, parseOperatorFlags } from './operator-flags.ts'
import { policyOf } from './policy.ts'
import { createServerDomains, webSocketPaths } from './server-domains.ts'

const FLAGS = [
  {
    name: 'host',
    kind: 'string',
    value: 'HOST',
    help: 'Where nodes connect: host, host:port, tcp:// or unix://. Default: 0.0.0.0.',
  },
  { name: 'port', kind: 'string', value: 'PORT', help: `Default: ${DEFAULT_PORT}; 0 is any free one.` },
  { name: 'listener', kind: 'list', value: 'SPEC', help: 'This side listens, the node forwards.' },
  { name: 'peer_listener', kind: 'list', value: 'SPEC', help: 'Every node listens, this side forwards.' },
  {
    name: 'balance',
    kind: 'boolean',
    help: 'Share new connections out among the nodes, instead of the first one serving.',
  },
  {
    name: 'allow-ports',
    kind: 'string',
    value: 'RANGE',
    help: 'Ports, TCP and UDP alike, that nodes may have listened on here: 9000-9999,22.',
  },
  {
    name: 'allow-names',
    kind: 'list',
    value: 'PATTERN',
    help: 'Names of the web port that nodes may have: app.example.com, *.example.com, /path, host/path, or * for all. Default: none; with --domain those below it.',
  },
  {
    name: 'domain',
    kind: 'string',
    value: 'NAME',
    help: 'Nodes get names below it ("symport http"), which lead here by a wildcard record of the DNS: example.com. Where visitors come in elsewhere, as through a proxy, the URL of that: https://example.com.',
  },
  ...LISTEN_FLAGS,
  ...ACME_FLAGS,
  ...CADDY_FLAGS,
  ...OPERATOR_FLAGS,
  CONFIG_FLAG,
  ...COMMON_FLAGS,
] as const

const server: Runnable = command({
  usage: 'symport server [flags]',
  summary: 'Accepts the connections of nodes, and maps ports between them and this machine.',
  flags: FLAGS,
  examples: [
    '# first start: makes a secret and prints the command line for the node',
    'symport server --listener 13389:127.0.0.1:3389',
    '# the same in the words of a config file',
    `symport server --listener '{"Listen":{"Domain":"tcp","Addr":"127.0.0.1:13389"},"Forward":{"Domain":"tcp","Addr":"127.0.0.1:3389"}}'`,
    '# what nodes may ask for: the way out for their proxies (-D), ports, names of the web port (-R http://...)',
    "symport server --allow '*:80' --allow '*:443' --allow-ports 9000-9999 --allow-names '*.example.com'",
    '# names below example.com, behind a Caddy that has ports 80 and 443, and gets their certificates',
    'symport server --domain example.com --caddy http://127.0.0.1:2019',
  ],
  async run(flags, positionals) {
    const { values, config: file, mappings: configured } = await applyConfig('server', flags)
    const config = file?.role === 'server' ? file : undefined
    // All of the command line is known to be good before anything is bound or written.
    const { cert, key, onePort } = parseListenFlags(values)
    const path = webSocketPaths(onePort.path, config?.wsp)
    let log: Logger | undefined
    const domains = createServerDomains({ reserved: path, onWarning: (text) => log?.warn(text) })
    const listeners = parseSpecs(values.listener, domains.domains, 'local')
    const peerListeners = parseSpecs(values.peer_listener, domains.domains, 'remote')
    const port = values.port === undefined ? undefined : toPort(values.port, 'port', { allowZero: true })
    const place = parsePlace(notEmpty(values.host, 'host') ?? '0.0.0.0', '--host', { port, listening: true })
    const { onDuplicate, admin, webhook } = parseOperatorFlags(values)
    const named = notEmpty(values.domain, 'domain')
    const domain = named === undefined ? undefined : parseDomain(named)
    const acme = await parseAcmeFlags(values)
    const caddy = parseCaddyFlags(values, onePort)
    policyOf(values, { own: {}, wsp: config?.wsp, domain })
    parseTimes(values)
    const given = await givenSecret(values)
    const state = stateFolder(values.state)
    checkLogLevel(values['log-level'])
    noPositionals(positionals)

    // What takes longest at a start is under way while the rest is loaded.
    const kept = given === undefined ? await readSecret(state) : undefined
    const secret = given ?? kept?.secret
    const credential = secret && !values['enrolled-only'] ? { secret, made: deriveCredential(secret) } : undefined
    // Whoever waits for it hears of a failure.
    credential?.made.catch(() => {})
    const { serve } = await import('./serve.ts')
    log = await createLog(values)
    return await serve({
      log,
      ...{ flags, values, config, domains, listeners, configured, peerListeners, place, cert, key },
      onePort: { ...onePort, path },
      ...{ domain, acme, caddy, onDuplicate, admin, webhook, given, credential, state },
      exposed: kept?.exposed ?? false,
    })
  },
})

export default server
