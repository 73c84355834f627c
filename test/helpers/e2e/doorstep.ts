import assert from 'node:assert/strict'
import { NoiseHandshake } from '../../../lib/core/noise.ts'
import {
  allowAll,
  type Connected,
  type Credential,
  connect,
  createServer,
  type DomainPlugin,
  deriveCredential,
  type HubEvent,
  type Link,
  type LinkSink,
  Proxy,
  type ProxyError,
  type ServerOptions,
  type SymportServer,
} from '../../../lib/index.ts'
import { memoryPair } from '../../../lib/testing.ts'
import { PREAMBLE, payload1, withLength } from '../core/bytes.ts'

const SECRET = 'limits-8c41e0d97f-chosen-by-hand'

/** A server whose links come in by hand, from addresses of the test's choice. */
export interface Doorstep extends AsyncDisposable {
  readonly server: SymportServer
  readonly events: readonly HubEvent[]
  /** The dialling end of a link that the server has just accepted. `remote`: where it comes from for the server. */
  knock(remote?: string): Link
  /** A node, with a Proxy on its main connection. */
  connect(options?: ConnectOptions): Promise<Proxy>
  /** The dialling ends of all links, in the order in which they came. */
  readonly links: readonly Link[]
  /** The server's end of the youngest main connection. */
  readonly youngest: Connected
}

export interface ConnectOptions {
  readonly remote?: string
  readonly secret?: Credential
  readonly domains?: readonly DomainPlugin[]
  /** What happens to the link before it is used. */
  readonly through?: (link: Link) => Link
}

export async function startDoorstep(options: Partial<ServerOptions> = {}): Promise<Doorstep> {
  let accept: (link: Link) => void = () => {}
  const events: HubEvent[] = []
  const server = await createServer({
    domains: [],
    policy: allowAll,
    secret: SECRET,
    ...options,
    onEvent: (event) => events.push(event),
    async listen(onLink) {
      accept = onLink
      return { address: 'by hand', close: async () => {} }
    },
  })
  const good = await deriveCredential(SECRET)
  const links: Link[] = []

  const knock = (remote?: string): Link => {
    const { a, b } = memoryPair()
    links.push(a)
    accept(remote === undefined ? b : new FromElsewhere(b, remote))
    return a
  }
  return {
    server,
    events,
    knock,
    links,
    async connect({ remote, secret = good, through = (link) => link, domains = [] }: ConnectOptions = {}) {
      const main = await connect(async () => through(knock(remote)), { secret, resumeTimeout: 0 })
      return new Proxy(main, { domains })
    },
    get youngest() {
      const youngest = [...server.nodes].at(-1)
      if (!youngest) throw new TypeError('nobody is connected')
      return youngest
    },
    async [Symbol.asyncDispose]() {
      for (const link of links) link.destroy()
      await server.close()
    },
  }
}

/** Of another secret than the server's. */
export function wrongCredential(): Promise<Credential> {
  return deriveCredential(`not ${SECRET}`)
}

/** What a dialler that knows the secret says first. The server answers, and waits for its hello. */
export async function firstWords(): Promise<Buffer> {
  const prologue = PREAMBLE.NNpsk0
  const noise = new NoiseHandshake({
    suite: 'NNpsk0',
    initiator: true,
    prologue,
    psk: (await deriveCredential(SECRET)).psk,
  })
  return Buffer.concat([prologue, withLength(noise.write(payload1()))])
}

/** Connects `limit` nodes, and then one more, which is told that there is no room. */
export async function fillSessions(door: Doorstep, limit: number): Promise<void> {
  for (let number = 0; number < limit; number++) await door.connect()
  assert.equal([...door.server.nodes].length, limit)
  assert.deepEqual(rejections(door), [])
  const more = await door.connect()
  assert.equal((await more.main.closed).code, 'PROXY_ERR_TOO_MANY_SESSIONS')
  assert.deepEqual(
    rejections(door).map(({ reason }) => [reason.code, reason.retryable]),
    [['PROXY_ERR_TOO_MANY_SESSIONS', true]],
  )
}

/** The links that the server has turned away. */
export function rejections({ events }: Doorstep): { remote: string | undefined; reason: ProxyError }[] {
  return events.flatMap((event) => (event.type === 'rejected' ? [{ remote: event.remote, reason: event.reason }] : []))
}

/** A link that says to come from somewhere. */
class FromElsewhere implements Link {
  readonly remote: string
  readonly #link: Link

  constructor(link: Link, remote: string) {
    this.#link = link
    this.remote = remote
  }

  get pending(): number {
    return this.#link.pending
  }

  start(sink: LinkSink): void {
    this.#link.start(sink)
  }

  write(chunks: readonly Uint8Array[]): void {
    this.#link.write(chunks)
  }

  resume(): void {
    this.#link.resume()
  }

  end(): void {
    this.#link.end()
  }

  destroy(error?: Error): void {
    this.#link.destroy(error)
  }
}

/** Counts what passes, and is cut off from the other side when it is told to be. */
export class Counted extends FromElsewhere {
  /** Bytes. */
  sent = 0
  received = 0
  /** While true, what is written goes nowhere. */
  deaf = false

  constructor(link: Link) {
    super(link, 'counted')
  }

  override start(sink: LinkSink): void {
    super.start({
      received: (bytes) => {
        this.received += bytes.length
        return sink.received(bytes)
      },
      drained: () => sink.drained(),
      ended: () => sink.ended(),
      closed: (error) => sink.closed(error),
    })
  }

  override write(chunks: readonly Uint8Array[]): void {
    if (this.deaf) return
    for (const chunk of chunks) this.sent += chunk.length
    super.write(chunks)
  }
}
