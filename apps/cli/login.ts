import { generateKeyPairSync } from 'node:crypto'
import { resolve } from 'node:path'
import { dialHandshake, HANDSHAKE_TIMEOUT, withDeadline } from '../../lib/core/handshake.ts'
import { type Credential, deriveCredential, ProxyError } from '../../lib/core/index.ts'
import { createNode } from '../../lib/create-node.ts'
import { createPolicy } from '../../lib/policy/policy.ts'
import { keepSecret, secretFileFor } from '../../lib/store/secrets.ts'
import { command, type Runnable, reportError } from '../common/command.ts'
import { stateFolder } from '../common/identity.ts'
import { askSecret, SECRET_FLAGS } from '../common/secret.ts'
import { DIAL_FLAGS } from '../common/transport-flags.ts'
import { keepLogin } from '../node/login.ts'
import { planServers, type ServerPlan } from '../node/plan.ts'
import { SERVER_FLAGS } from '../node/server-flags.ts'

const [, , , ID_FLAG] = SERVER_FLAGS

const login: Runnable = command({
  usage: 'symport login [flags] URL',
  summary:
    'Keeps a server and its secret, which is asked for once: "symport http", tcp, udp, node and connect then need no more flags. The last login counts.',
  flags: [
    ID_FLAG,
    ...DIAL_FLAGS,
    ...SECRET_FLAGS,
    { name: 'state', kind: 'string', value: 'DIR', help: 'The folder in which it is kept.' },
  ],
  examples: [
    'symport login tcp://server.example.com:925',
    'symport login wss://server.example.com/symport --id office',
    '# without a terminal',
    'symport login server.example.com --uuid-file secret.txt',
  ],
  async run(values, positionals) {
    const [server, another] = positionals
    if (server === undefined || another !== undefined) {
      throw usage('login takes one server: symport login tcp://server.example.com:925')
    }
    const none = { host: undefined, server: undefined, port: undefined }
    const lists = { dynamic: [], listener: [], peer_listener: [], allow: [] }
    const [plan] = await planServers({ ...values, ...none, ...lists }, [server], { config: undefined, domains: [] })
    if (plan === undefined) return 1
    const state = stateFolder(values.state)
    const { name } = plan.place
    const secret = plan.secret ?? (await askSecret(`Secret of ${name}: `))
    if (secret === undefined) {
      throw new ProxyError('PROXY_ERR_SECRET', `the secret of ${name} is missing: give --uuid-file or SYMPORT_UUID`)
    }
    const problem = await tryLogin(plan, secret)
    if (problem) {
      reportError(problem)
      return 1
    }
    await keepSecret(state, secret, secretFileFor(name))
    const { id, ca, pin, proxy } = values
    await keepLogin(state, { server, id, ca: ca === undefined ? undefined : resolve(ca), pin, proxy })
    process.stdout.write(`logged in to ${name}: "symport http 3000" publishes now\n`)
    return 0
  },
})

export default login

/** Connects once; answers why that does not work. */
async function tryLogin(plan: ServerPlan, secret: string): Promise<ProxyError | undefined> {
  const { place, id, name } = plan
  try {
    if (name !== undefined && (await isEnrolled(place, await deriveCredential(secret, name)))) return undefined
  } catch (error) {
    return ProxyError.from(error, 'PROXY_ERR_DIAL_FAILED')
  }
  let done: (problem: ProxyError | undefined) => void = () => {}
  const tried = new Promise<ProxyError | undefined>((resolve) => {
    done = resolve
  })
  await using _node = await createNode({
    dial: (options) => place.dial(options),
    server: place.name,
    ...{ secret, id },
    // One of its own: this is no second instance of the node that may run here.
    identity: generateKeyPairSync('ed25519').privateKey,
    domains: [],
    policy: createPolicy({ dial: 'none', listenPorts: 'none' }),
    onEvent(event) {
      if (event.type === 'connected') done(undefined)
      if (event.type === 'retrying') done(event.reason)
    },
  })
  return await tried
}

/**
 * Whether the server knows a node of this name and secret. That is known before hello, which would make this one a second
 * instance of a node that may run: it would be turned away, or take that one's place.
 */
async function isEnrolled(place: ServerPlan['place'], credential: Credential): Promise<boolean> {
  const link = await place.dial({ signal: AbortSignal.timeout(HANDSHAKE_TIMEOUT) })
  try {
    await withDeadline(link, {}, (reader) => dialHandshake(link, reader, credential))
    return true
  } catch (error) {
    if (error instanceof ProxyError && error.code === 'PROXY_ERR_REFUSED') return false
    throw error
  } finally {
    link.destroy()
  }
}

function usage(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message)
}
