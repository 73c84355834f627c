import { Duplex } from 'node:stream'
import type {
  Abortable,
  DomainPlugin,
  Endpoint,
  Listener,
  MainConnection,
  SubConnection,
} from '../../lib/core/index.ts'
import { Proxy, ProxyError } from '../../lib/core/index.ts'
import { codeDomain } from '../helpers/contract/code.ts'
import { DOMAINS } from './model.ts'
import type { Witness } from './oracle.ts'
import type { Random } from './random.ts'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** A local program that answers in its own way. */
function program(name: string, onChunk: (duplex: Duplex, chunk: Buffer) => void, begin?: (duplex: Duplex) => void) {
  const dial = async (): Promise<Duplex> => {
    const duplex: Duplex = new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, callback) {
        onChunk(duplex, chunk)
        callback()
      },
      final(callback) {
        duplex.push(null)
        callback()
      },
    })
    begin?.(duplex)
    return duplex
  }
  return { name, dial } satisfies DomainPlugin
}

/** What the real side can be asked for. Every way for a dial or a listen to go is among them. */
function domains(): DomainPlugin[] {
  const refuse = async (): Promise<never> => {
    throw new Error('connect ECONNREFUSED')
  }
  const never = (_to: Endpoint, { signal }: { signal: AbortSignal }): Promise<Duplex> =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('given up'))))
  const drain = program('drain', () => {})
  return [
    program('echo', (duplex, chunk) => duplex.push(Buffer.from(chunk))),
    drain,
    program(
      'source',
      () => {},
      (duplex) => duplex.push(Buffer.alloc(100_000, 0x73)),
    ),
    program('breaks', (duplex) => duplex.destroy(new ProxyError('PROXY_ERR_RESET', 'the program broke'))),
    { name: 'sink', dial: async () => new Duplex({ read() {}, write() {} }) },
    { name: 'never', dial: never },
    { name: 'refuses', dial: refuse, listen: refuse },
    {
      name: 'late',
      async dial() {
        for (let left = 5; left > 0; left--) await turn()
        return await drain.dial()
      },
      async listen(at) {
        for (let left = 5; left > 0; left--) await turn()
        return { bound: at, async close() {}, async [Symbol.asyncDispose]() {} }
      },
    },
  ]
}

/** The real side's Proxy, and what its user does meanwhile. */
export class Subject {
  readonly main: MainConnection
  readonly proxy: Proxy
  readonly #witness: Witness
  readonly #code = codeDomain()
  readonly #own: SubConnection[] = []
  readonly #listeners: Listener[] = []
  /** Calls that have not settled, by what was called. */
  readonly #calls = new Set<{ readonly what: string }>()

  constructor(main: MainConnection, witness: Witness) {
    this.main = main
    this.#witness = witness
    this.proxy = new Proxy(main, { domains: [...domains(), this.#code] })
  }

  /** Something that a user of the library does, chosen by lot. */
  act(random: Random): void {
    const to: Endpoint = { Domain: random.pick(DOMAINS), Addr: 'y' }
    switch (
      random.weighted({ open: 6, dial: 3, come: 4, listen: 2, accept: 2, write: 6, end: 3, destroy: 2, unlisten: 1 })
    ) {
      case 'open':
        this.#track('open', this.proxy.open({ to, from: 'somebody' }, this.#patience(random, 0.2)), (sub) => {
          this.#hold(sub, random)
        })
        break
      case 'dial':
        this.#track('dial', this.proxy.dial(to, this.#patience(random, 0.8)), (sub) => this.#hold(sub, random))
        break
      case 'come':
        if (this.#code.listening > 0)
          this.#track('come', this.#code.open('192.0.2.9:9'), (sub) => this.#hold(sub, random))
        break
      case 'listen':
        this.#track(
          'newPeerListener',
          this.proxy.newPeerListener(
            { Listen: to, Forward: { Domain: 'echo', Addr: '' } },
            this.#patience(random, 0.8),
          ),
          (listener) => this.#listeners.push(listener),
        )
        break
      case 'accept':
        this.#track('accept', this.proxy.accept(to, this.#patience(random, 0.8)), (incoming) => {
          this.#listeners.push(incoming)
          this.#track('for await', this.#answer(incoming), () => {})
        })
        break
      case 'write':
        this.#some(random)?.write(random.bytes(random.chance(0.05) ? 200_000 : random.int(2000)))
        break
      case 'end':
        this.#some(random)?.end()
        break
      case 'destroy':
        for (const sub of this.proxy.subConnections) if (random.chance(0.2)) sub.destroy()
        break
      case 'unlisten':
        this.#track('close', this.#listeners.shift()?.close() ?? Promise.resolve(), () => {})
    }
  }

  /** What is still there of a session that is over; undefined if nothing is. */
  get left(): string | undefined {
    const subs = [...this.proxy.subConnections].length
    if (subs > 0) return `${subs} sub-connections`
    if (this.#code.listening > 0) return `${this.#code.listening} listeners`
    if (this.#calls.size > 0) return `calls that never settled: ${[...this.#calls].map(({ what }) => what)}`
    return this.proxy.state === 'closed' ? undefined : `the state ${this.proxy.state}`
  }

  drain(): void {
    this.#track('drain', this.proxy.drain({ signal: AbortSignal.timeout(20) }), () => {})
  }

  async #answer(incoming: AsyncIterable<SubConnection>): Promise<void> {
    for await (const sub of incoming) sub.pipe(sub)
  }

  #track<T>(what: string, promise: Promise<T>, then: (result: T) => void): void {
    const call = { what }
    this.#calls.add(call)
    promise
      .then(then, (error) => this.#witness.check(error, what))
      .finally(() => {
        this.#calls.delete(call)
      })
  }

  #patience(random: Random, probability: number): Abortable {
    return random.chance(probability) ? { signal: AbortSignal.timeout(random.int(30)) } : {}
  }

  #hold(sub: SubConnection, random: Random): void {
    if (random.chance(0.7)) sub.resume()
    this.#own.push(sub)
    if (this.#own.length > 20) this.#own.shift()
  }

  #some(random: Random): SubConnection | undefined {
    const sub = random.pick(this.#own)
    return sub?.writable ? sub : undefined
  }
}
