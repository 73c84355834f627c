import { createPolicy, createServer, type HubEvent, ProxyError, parsePortRanges, readToken } from '../../lib/index.ts'
import { isGuessable, loadOrMakeSecret, loadServerIdentity } from '../../lib/store/secrets.ts'
import type { StateFolder } from '../../lib/store/state-folder.ts'
import { command, noPositionals, type Runnable } from '../common/command.ts'
import { logEvents } from '../common/events.ts'
import { notEmpty, toPort } from '../common/flags.ts'
import { isLoopbackHost, nodeCommand, stateFolder, warnExposed } from '../common/identity.ts'
import { checkLogLevel, createLog, type Logger } from '../common/log.ts'
import { COMMON_FLAGS, createDomains, parsePatterns, parseSpecs, parseTimes } from '../common/options.ts'
import { givenSecret } from '../common/secret.ts'
import { DEFAULT_PORT, type Place, parsePlace } from '../common/transports.ts'
import { stopSignal, untilStopped } from '../common/until-stopped.ts'

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
    help: 'Ports that nodes may have listened on here: 9000-9999,22.',
  },
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
  ],
  async run(values, positionals) {
    // All of the command line is known to be good before anything is bound or written.
    const domains = createDomains()
    const listeners = parseSpecs(values.listener, domains)
    const peerListeners = parseSpecs(values.peer_listener, domains)
    const port = values.port === undefined ? undefined : toPort(values.port, 'port', { allowZero: true })
    const place = parsePlace(notEmpty(values.host, 'host') ?? '0.0.0.0', '--host', { port, listening: true })
    const dial = values.allow.length > 0 ? parsePatterns(values.allow) : 'none'
    const listenPorts = values['allow-ports'] === undefined ? 'none' : parsePortRanges(values['allow-ports'])
    const { drainTimeout: timeout, ...times } = parseTimes(values)
    const given = await givenSecret(values)
    const state = stateFolder(values.state)
    checkLogLevel(values['log-level'])
    noPositionals(positionals)

    const log = await createLog(values)
    const identity = await serverSecret(state, given)
    warnExposed(log, state.path, identity.exposed)
    if (!readToken(identity.secret) && isGuessable(identity.secret) && !isLoopbackHost(place.host)) {
      log.warn('this secret can be guessed by whoever watches a connection: leave --uuid out to get a strong one')
    }
    const onEvent = logEvents(log, 'server', listeners.length > 0)
    const stop = stopSignal()
    const starting = createServer({
      listen: (onLink) => place.listen(onLink),
      ...identity,
      listeners,
      peerListeners,
      balance: values.balance,
      domains,
      ...times,
      policy: createPolicy({ dial, listenPorts }),
      onEvent(event: HubEvent) {
        onEvent(event)
        if (event.type === 'listening' && !given) tellNode(log, place, event.address, identity)
      },
    })
    const server = await starting.catch((error) => {
      throw withAdvice(error, place)
    })
    return await untilStopped(server, { stop, timeout, log })
  },
})

export default server

interface ServerSecret {
  readonly secret: string
  readonly staticKey?: Parameters<typeof createServer>[0]['staticKey']
  /** Whether it was made at this start. */
  readonly made: boolean
  readonly exposed: boolean
}

/** What to do when the server's own port cannot be had. */
function withAdvice(error: unknown, { port }: Place): unknown {
  if (!(error instanceof ProxyError) || port === undefined || !(error.cause instanceof Error)) return error
  const code = 'code' in error.cause ? error.cause.code : undefined
  // 925 becomes 8925.
  const other = port < 1024 ? 8000 + port : port + 1
  const advice =
    code === 'EACCES' ? `: try --port ${other}` : code === 'EADDRINUSE' ? ` (another server? try --port ${other})` : ''
  return new ProxyError(error.code, `${error.message}${advice}`, { cause: error })
}

/** The given secret, or the kept one, or a new one. Only tokens need the server's key. */
async function serverSecret(state: StateFolder, given: string | undefined): Promise<ServerSecret> {
  if (given !== undefined && !readToken(given)) return { secret: given, made: false, exposed: false }
  const { privateKey, publicKey, exposed } = await loadServerIdentity(state)
  if (given === undefined) {
    const kept = await loadOrMakeSecret(state)
    return { ...kept, staticKey: privateKey, exposed: kept.exposed || exposed }
  }
  if (!readToken(given)?.publicKey.equals(publicKey)) {
    throw new ProxyError(
      'PROXY_ERR_SECRET',
      `--uuid: this token belongs to another server: its key is not the one in ${state.path}`,
    )
  }
  return { secret: given, staticKey: privateKey, made: false, exposed }
}

/** What to run on the other machine. A log that is kept holds the secret once, from the start that made it. */
function tellNode(log: Logger, place: Place, address: string, { secret, made }: ServerSecret): void {
  const port = Number(/\d+$/.exec(address)?.[0])
  if (place.port === undefined || !readToken(secret)) return
  if (process.stdout.isTTY) {
    process.stdout.write(`\n  On the other machine:\n\n    ${nodeCommand(place.host, port, secret)}\n\n`)
  } else if (made) {
    log.info({ command: nodeCommand(place.host, port, secret) }, 'on the other machine')
  } else {
    log.info('"symport uuid" shows what to run on the other machine')
  }
}
