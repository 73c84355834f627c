import { Agent, type ClientRequest, type ClientRequestArgs, request } from 'node:http'
import { Duplex } from 'node:stream'
import type { Admitted, ListenContext, OpenOptions } from '../core/index.ts'

/** Connections to a target that wait for the next request. */
const MOST_IDLE = 64
/** How long, in ms: less than the 5 s after which many servers close theirs. */
const IDLE_TIME = 4000
/** How long a target may take to end a connection that is over, in ms. */
const LINGER = 5000
/** Bytes of the head of an answer. */
const LONGEST_HEAD = 65_536

export interface UpstreamRequest {
  readonly method: string
  readonly path: string
  /** Names and values, as they are sent. */
  readonly headers: readonly string[]
  /** Who asks, as in `Link.remote`. A connection that is used again has the name of the first. */
  readonly from: string | undefined
  /** Only those with whom it shares get a connection that was used before. */
  readonly admitted?: Admitted | undefined
}

/** HTTP/1.1 to the target of one listener: each connection is a sub-connection. */
export class Upstream extends Agent {
  readonly #context: ListenContext
  readonly #idle = new Map<Duplex, NodeJS.Timeout>()
  /** Connections that only one visitor may use. */
  readonly #private = new WeakSet<Duplex>()
  #from: string | undefined
  #admitted: Admitted | undefined
  #closed = false

  constructor(context: ListenContext) {
    super({ keepAlive: true, maxFreeSockets: MOST_IDLE })
    this.#context = context
  }

  /** On a connection that was used before, if there is one. */
  send({ from, admitted, headers, ...what }: UpstreamRequest): ClientRequest {
    // Asked for in this very call, if a new one is needed.
    this.#from = from
    this.#admitted = admitted
    const sharing: object = { sharing: admitted?.sharing }
    return request({ ...settings(headers), ...what, ...sharing, agent: this })
  }

  /** What connections are kept by. */
  override getName(options: ClientRequestArgs = {}): string {
    return 'sharing' in options && typeof options.sharing === 'string' ? options.sharing : ''
  }

  /** On a new connection, which is not used again. */
  sendAlone({ from, admitted, headers, ...what }: UpstreamRequest): ClientRequest {
    const createConnection = (_: unknown, done: Done): undefined => {
      this.#open({ from, admitted, alone: true }, done)
    }
    return request({ ...settings(headers), ...what, createConnection })
  }

  /** Some ways to log in (NTLM, Negotiate) are about the connection: what comes next on it would come from that visitor. */
  keepPrivate(connection: Duplex): void {
    this.#private.add(connection)
  }

  /** Ends a connection without a reset, which the target would take for a mishap. */
  retire(connection: Duplex): void {
    connection.end()
    // Nobody gets it any more.
    connection.emit('agentRemove')
    connection.resume()
    const timer = setTimeout(() => connection.destroy(), LINGER).unref()
    connection.once('close', () => clearTimeout(timer))
  }

  /** Requests that are under way go on. */
  close(): void {
    this.#closed = true
    for (const connection of this.#idle.keys()) this.retire(connection)
  }

  override createConnection(_options: unknown, done: Done): undefined {
    this.#open({ from: this.#from, admitted: this.#admitted }, done, (connection) => {
      // A target that ends an idle connection is answered, and then nothing more is sent on it.
      connection.once('end', () => connection.end())
      connection.once('close', () => this.#wake(connection))
    })
  }

  override keepSocketAlive(connection: Duplex): boolean {
    if (this.#closed || this.#idle.size >= MOST_IDLE || this.#private.has(connection)) return false
    this.#idle.set(connection, setTimeout(() => this.retire(connection), IDLE_TIME).unref())
    connection.once('data', onStray)
    return true
  }

  override reuseSocket(connection: Duplex, again: ClientRequest): void {
    this.#wake(connection)
    // Node's own, for the time in which it was idle, and ours.
    connection.removeAllListeners('error')
    connection.on('error', () => {})
    again.reusedSocket = true
  }

  #wake(connection: Duplex): void {
    clearTimeout(this.#idle.get(connection))
    this.#idle.delete(connection)
    connection.off('data', onStray)
  }

  #open(options: OpenOptions, done: Done, onOpen?: (connection: Duplex) => void): void {
    this.#context.open(options).then(
      (sub) => {
        // Between two requests nobody else looks.
        sub.on('error', () => {})
        onOpen?.(sub)
        done(null, sub)
      },
      // Nobody looks at it, but there has to be one.
      (error) => done(error, new Duplex()),
    )
  }
}

/** Said by a target that nobody has asked: whoever came next would take it for an answer. */
function onStray(this: Duplex): void {
  this.destroy()
}

type Done = (error: Error | null, connection: Duplex) => void

function settings(headers: readonly string[]): object {
  return { headers, setHost: false, maxHeaderSize: LONGEST_HEAD }
}
