import type { DomainPlugin } from '../../lib/core/index.ts'
import { loadNodeKey } from '../../lib/store/secrets.ts'
import { parseAdminAddress } from '../common/admin-address.ts'
import { command, type Runnable } from '../common/command.ts'
import { applyConfig, CONFIG_FLAG } from '../common/config-flag.ts'
import { outliveHangUp } from '../common/hang-up.ts'
import { stateFolder, warnExposed } from '../common/identity.ts'
import { checkLogLevel, createLog, type Logger } from '../common/log.ts'
import { COMMON_FLAGS, createDomains, parseTimes } from '../common/options.ts'
import { askSecret } from '../common/secret.ts'
import { DIAL_FLAGS } from '../common/transport-flags.ts'
import { stopSignal, untilStopped } from '../common/until-stopped.ts'
import { findSecrets } from './find-secrets.ts'
import { loadLogin, planServers } from './plan.ts'
import { SERVER_FLAGS } from './server-flags.ts'

const FLAGS = [
  ...SERVER_FLAGS,
  {
    name: 'dynamic',
    alias: 'D',
    kind: 'list',
    value: '[bind:]port',
    help: 'A SOCKS5 and HTTP proxy here, whose connections leave at the server (if it allows), or at the tunnel of another node: socks5://tunnel:password@:1080.',
  },
  {
    name: 'listener',
    alias: 'L',
    kind: 'list',
    value: 'SPEC',
    help: 'This side listens, the server forwards (if it allows), or the channel of another node: tcp://channel:password@127.0.0.1:2200.',
  },
  {
    name: 'peer_listener',
    alias: 'R',
    kind: 'list',
    value: 'SPEC',
    help: "The server listens (if it allows), this side forwards. A name and a password make it a channel: tcp://channel:password@127.0.0.1:22, tunnel://name:password@. ?mode= makes it a name of the server's web port: http://127.0.0.1:8080?mode=path&value=api.",
  },
  ...DIAL_FLAGS,
  {
    name: 'admin',
    kind: 'string',
    value: 'ADDR',
    help: 'Serve "symport status", the API and /metrics of this node here, for whoever has the token in the state folder, and on a socket there: 127.0.0.1:9251.',
  },
  CONFIG_FLAG,
  ...COMMON_FLAGS,
] as const

const node: Runnable = command({
  usage: 'symport node [flags] [URL]...',
  summary: 'Connects to a server, or to several, and stays connected; the server maps ports to here.',
  flags: FLAGS,
  examples: [
    'symport node --host server.example.com --uuid-file secret.txt',
    '# through nothing but a web port, with a proxy on the way out',
    'symport node --server wss://server.example.com/symport --proxy http://proxy.corp:3128',
    '# reach the database of the server as if it were here (the server runs with --allow 127.0.0.1:5432)',
    'symport node --host server.example.com -L 5432:127.0.0.1:5432',
    '# only the remote desktop may be reached through this node',
    'symport node --host server.example.com --allow 127.0.0.1:3389',
    '# at home: offer ssh as a channel; elsewhere: join it (ssh -p 2200 127.0.0.1, or see "symport connect --help")',
    'symport node --host server.example.com -R tcp://ssh:password@127.0.0.1:22',
    'symport node --host server.example.com -L tcp://ssh:password@127.0.0.1:2200',
    '# a web page at http://server.example.com/api/ (its port 80, and --allow-names /api)',
    "symport node --server ws://server.example.com -R 'http://127.0.0.1:8080?mode=path&value=api'",
    '# a proxy for the browser (the server runs with --allow, which says where to)',
    'symport node --host server.example.com -D 1080',
    '# two servers at once',
    'symport node one.example.com wss://two.example.com/symport',
  ],
  async run(flags, positionals) {
    const { values, config } = await applyConfig('node', flags, { named: positionals.length > 0 })
    // All of the command line is known to be good before anything is bound or dialled.
    let log: Logger | undefined
    const domains: DomainPlugin[] = createDomains({ onWarning: (text) => log?.warn(text) })
    const nodeConfig = config?.role === 'node' ? config : undefined
    const state = stateFolder(values.state)
    const plans = await planServers(values, positionals, {
      config: nodeConfig,
      domains,
      login: () => loadLogin(state),
    })
    const { drainTimeout: timeout, ...times } = parseTimes(values)
    const tcp = parseAdminAddress(values.admin)
    checkLogLevel(values['log-level'])

    const { ready, exposed } = await findSecrets(plans, state, askSecret)
    // Loaded while the secrets are made into keys.
    const { startNodes } = await import('./start-nodes.ts')
    log = await createLog(values)
    outliveHangUp(log)
    for (const warning of config?.warnings ?? []) log.warn(warning)
    const key = await loadNodeKey(state)
    warnExposed(log, state.path, exposed || key.exposed)
    const stop = stopSignal()
    await using observer =
      tcp &&
      (await (
        await import('./observe.ts')
      ).observe({ tcp, folder: state, servers: plans.map(({ place }) => place.name), log }))
    const nodes = await startNodes(ready, {
      ...{ domains, log, observer, identity: key.privateKey },
      options: { ...times, ...config?.options },
    })
    return await untilStopped(nodes, { stop, timeout: () => timeout, log })
  },
})

export default node
