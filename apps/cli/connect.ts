import { ProxyError } from '../../lib/core/index.ts'
import { command, type Runnable } from '../common/command.ts'
import { applyConfig, CONFIG_FLAG } from '../common/config-flag.ts'
import { notEmpty } from '../common/flags.ts'
import { stateFolder, warnExposed } from '../common/identity.ts'
import { checkLogLevel, createLog, STDERR_LOG_FLAGS } from '../common/log.ts'
import { createDomains, parseTimes } from '../common/options.ts'
import { askOnTerminal, SECRET_FLAGS } from '../common/secret.ts'
import { DIAL_FLAGS } from '../common/transport-flags.ts'
import { findSecrets } from '../node/find-secrets.ts'
import { loadLogin, onlyServer, planServers } from '../node/plan.ts'
import { SERVER_FLAGS } from '../node/server-flags.ts'
import { readTarget } from './connect-target.ts'
import { joinStdio } from './join-stdio.ts'
import { logToStderr } from './stderr-log.ts'

const FLAGS = [
  {
    name: 'password-file',
    kind: 'string',
    value: 'FILE',
    help: 'A file that holds the password of the channel, which then is not in the URL: tcp://ssh@.',
  },
  ...SERVER_FLAGS,
  ...DIAL_FLAGS,
  ...SECRET_FLAGS,
  CONFIG_FLAG,
  { name: 'state', kind: 'string', value: 'DIR', help: 'The folder in which secrets of servers are kept.' },
  {
    name: 'resume-timeout',
    kind: 'string',
    value: 'TIME',
    help: 'How long the connection waits for a lost link to come back; 0s: not at all. Default: 120s.',
  },
  {
    name: 'keepalive',
    kind: 'string',
    value: 'TIME',
    help: 'The server is asked for a sign of life after this long in silence; 10 s later the link is lost. Default: 15s.',
  },
  ...STDERR_LOG_FLAGS,
] as const

/** What the file of a node may say besides, and what is not for this command: it listens nowhere. */
const NOT_HERE: {
  readonly [name in 'dynamic' | 'listener' | 'peer_listener' | 'allow']: readonly string[]
} & { readonly [name in 'admin' | 'drain-timeout']: undefined } = {
  ...{ dynamic: [], listener: [], peer_listener: [], allow: [] },
  ...{ admin: undefined, 'drain-timeout': undefined },
}

const connectCommand: Runnable = command({
  usage: 'symport connect [flags] URL',
  summary:
    'Joins a channel, or what the server can reach, to standard input and output. SYMPORT_CONNECT may hold the URL, so that its password does not stand in the process list.',
  flags: FLAGS,
  examples: [
    '# ssh to the machine that offers the channel "ssh" (symport node -R tcp://ssh:password@127.0.0.1:22)',
    "ssh -o ProxyCommand='symport connect tcp://ssh:password@ --host server.example.com' home",
    '# the same, with the password in a file',
    'symport connect tcp://ssh@ --password-file ~/.ssh/channel-password --host server.example.com',
    '# the database of the server (which runs with --allow 127.0.0.1:5432)',
    'symport connect tcp://127.0.0.1:5432 --host server.example.com',
  ],
  async run(flags, positionals) {
    const url = urlOf(positionals)
    const target = await readTarget(url, notEmpty(flags['password-file'], 'password-file'))
    const { values, config } = await applyConfig('node', { ...flags, ...NOT_HERE })
    const nodeConfig = config?.role === 'node' ? config : undefined
    const plans = await planServers({ ...values, ...NOT_HERE }, [], {
      ...{ config: nodeConfig, domains: createDomains() },
      login: () => loadLogin(stateFolder(values.state)),
    })
    const plan = onlyServer(plans)
    const { resumeTimeout, keepalive } = parseTimes(values)
    const state = stateFolder(values.state)
    // Those of the file are about the node that runs with it.
    const logging = { 'log-level': flags['log-level'] ?? 'warn', 'log-file': flags['log-file'] }
    checkLogLevel(logging['log-level'])

    const { ready, exposed } = await findSecrets([plan], state, askOnTerminal)
    const log = logging['log-file'] === undefined ? logToStderr(logging['log-level']) : await createLog(logging)
    for (const warning of config?.warnings ?? []) log.warn(warning)
    warnExposed(log, state.path, exposed)
    const options = { resumeTimeout, keepalive, limits: config?.options.limits }
    const [only] = ready
    const status = only === undefined ? 1 : await joinStdio(only, target, { log, options, stop: interrupted() })
    // Standard input may still be open, and a terminal never ends.
    process.exit(status)
  },
})

export default connectCommand

function urlOf(positionals: readonly string[]): string {
  const [url, another] = positionals
  if (another !== undefined) throw usage('connect takes one URL: the server is named with --host or --server')
  const found = url ?? process.env.SYMPORT_CONNECT
  if (found !== undefined && found !== '') return found
  throw usage('connect where to? For example: symport connect tcp://CHANNEL:PASSWORD@ --host server.example.com')
}

/** ssh hangs up when it is done; SIGINT and SIGTERM are what a person or a supervisor sends. A second one ends at once. */
function interrupted(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => resolve())
  })
}

function usage(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message)
}
