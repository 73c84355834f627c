import { generateKeyPairSync } from 'node:crypto'
import { type Endpoint, ProxyError } from '../../lib/core/index.ts'
import { createNode, type NodeOptions } from '../../lib/create-node.ts'
import type { HubEvent } from '../../lib/index.ts'
import { createPolicy } from '../../lib/policy/policy.ts'
import { reportError } from '../common/command.ts'
import { logEvents } from '../common/events.ts'
import type { Logger } from '../common/log.ts'
import type { ReadyPlan } from '../node/find-secrets.ts'
import { Stdio, stdio } from './stdio.ts'

export interface JoinOptions {
  readonly log: Logger
  readonly options: Pick<NodeOptions, 'resumeTimeout' | 'keepalive' | 'limits'>
  /** When whoever runs it wants it to end: what is under way is cut. */
  readonly stop: Promise<unknown>
}

/** Ends what is under way, without a word. */
class Interrupted extends Error {}

/** How long the last bytes may take to get to the server when both sides have ended, in ms. */
const LAST_BYTES = 30_000

/** Joins `target` to standard input and output, from the first byte to the last. Answers the exit status. */
export async function joinStdio(plan: ReadyPlan, target: Endpoint, options: JoinOptions): Promise<number> {
  try {
    await join(plan, target, options)
    return 0
  } catch (error) {
    // Whatever it is, the command line is not to blame.
    if (!(error instanceof Interrupted)) reportError(error)
    return 1
  }
}

async function join(plan: ReadyPlan, target: Endpoint, { log, options, stop }: JoinOptions): Promise<void> {
  const interrupted = stop.then((): never => {
    throw new Interrupted()
  })
  interrupted.catch(() => {})
  const stream = new Stdio()
  const ended = endOf(stream)
  const told = logEvents(log, 'node', false)
  const way = new WayToServer()
  const { place, id, name, secret } = plan
  const domain = stdio(stream, way.found)
  const node = await createNode({
    dial: (dialOptions) => place.dial(dialOptions),
    server: place.name,
    ...{ secret, id, name, ...options },
    // One of its own: this is no second instance of the node that may run here.
    identity: generateKeyPairSync('ed25519').privateKey,
    listeners: [{ Listen: { Domain: domain.name, Addr: '' }, Forward: target }],
    domains: [domain],
    policy: createPolicy({ dial: 'none', listenPorts: 'none' }),
    onEvent(event) {
      way.onEvent(event)
      // What ends the command is told once, as its error.
      if (event.type === 'unserved' || event.type === 'refused') return
      if (event.type !== 'retrying' || way.isFound) told(event)
    },
  })
  const giveUp = new AbortController()
  let failing = `no connection to the server ${place.name}`
  way.found.then(
    () => {
      failing = `no connection to ${described(target)} by way of ${place.name}`
    },
    () => {},
  )
  try {
    const sub = await Promise.race([domain.opened, way.lost, interrupted])
    sub.once('connect', () => {
      failing = 'the connection is broken'
    })
    // No other connection is for this process: the server hears that nothing new may come here.
    const drained = node.drain({ signal: giveUp.signal })
    await Promise.race([ended, interrupted])
    const timer = setTimeout(() => giveUp.abort(), LAST_BYTES)
    await Promise.race([drained, interrupted])
    clearTimeout(timer)
    if (giveUp.signal.aborted) throw new ProxyError('PROXY_ERR_RESET', 'the other side has not taken the last bytes')
  } catch (error) {
    // Whoever read our output has gone away: that is no error.
    if (isClosedPipe(error)) return
    if (error instanceof Interrupted) throw error
    if (stream.failure) throw stream.failure
    const { code, message } = ProxyError.from(error, 'PROXY_ERR_RESET')
    const why = code === 'PROXY_ERR_DIAL_DENIED' ? `the server refused: ${message}` : message
    throw new ProxyError(code, `${failing}: ${why}`, { cause: error })
  } finally {
    giveUp.abort()
    await node.close()
  }
}

function described({ Domain, Addr }: Endpoint): string {
  return Domain === 'channel' ? `channel ${Addr}` : `${Domain}://${Addr}`
}

function isClosedPipe(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EPIPE'
}

/** Resolves when both directions have ended in order. */
function endOf(stream: Stdio): Promise<void> {
  const ended = new Promise<void>((resolve, reject) => {
    stream.once('error', reject)
    stream.once('close', () => {
      if (stream.readableEnded && stream.writableFinished) resolve()
      else reject(new ProxyError('PROXY_ERR_RESET', 'the connection was closed'))
    })
  })
  // It may be over before anybody waits for that.
  ended.catch(() => {})
  return ended
}

/** What becomes of the main connection. There is one try. */
class WayToServer {
  /** Rejects with the reason why there is none. */
  readonly found: Promise<void>
  /** Rejects when it is over. */
  readonly lost: Promise<never>
  #isFound = false
  #find: () => void = () => {}
  #fail: (reason: ProxyError) => void = () => {}
  #lose: (reason: ProxyError) => void = () => {}

  constructor() {
    this.found = new Promise((resolve, reject) => {
      this.#find = resolve
      this.#fail = reject
    })
    this.lost = new Promise((_, reject) => {
      this.#lose = reject
    })
    for (const promise of [this.found, this.lost]) promise.catch(() => {})
  }

  get isFound(): boolean {
    return this.#isFound
  }

  onEvent(event: HubEvent): void {
    if (event.type === 'connected') {
      this.#isFound = true
      this.#find()
    } else if (event.type === 'retrying') {
      this.#fail(event.reason)
    } else if (event.type === 'disconnected') {
      this.#lose(event.reason)
    }
  }
}
