import { diagnostics, ProxyError } from '../../lib/core/index.ts'

/** As doc/protocol.md allows it: some are the words of a peer. */
const CODE = /^PROXY_ERR_[A-Z_]{1,54}$/
const MAX_FAULTS = 20

/** The oracle as one session or handshake sees it: what it reports bears its name. */
export interface Witness {
  fault(what: string): void
  check(error: unknown, what: string): void
}

/** What must hold whatever a peer sends; it collects what did not. */
export class Oracle implements Witness, Disposable {
  readonly faults: string[] = []
  /** How sessions ended, and links, and handshakes, by code. */
  readonly codes: Map<string, number> = new Map()
  readonly #off: (() => void)[] = []

  /** Listens to everything that nobody catches, and to every error that the core publishes, until it is disposed. */
  constructor() {
    for (const event of ['unhandledRejection', 'uncaughtException'] as const) {
      const onStray = (error: unknown): void => this.fault(`${event}: ${describe(error)}`)
      process.on(event, onStray)
      this.#off.push(() => process.off(event, onStray))
    }
    const watched = [
      [diagnostics.mainClose, 'the end of a session'],
      [diagnostics.mainPause, 'the loss of a link'],
      [diagnostics.refused, 'a refusal'],
    ] as const
    for (const [channel, what] of watched) {
      const onMessage = (message: unknown): void => {
        this.check((message as { error: unknown }).error, what)
      }
      channel.subscribe(onMessage)
      this.#off.push(() => channel.unsubscribe(onMessage))
    }
    const onSub = (message: unknown): void => {
      const { errored } = (message as { sub: { errored: unknown } }).sub
      if (errored) this.check(errored, 'the end of a sub-connection')
    }
    diagnostics.subClose.subscribe(onSub)
    this.#off.push(() => diagnostics.subClose.unsubscribe(onSub))
  }

  [Symbol.dispose](): void {
    for (const off of this.#off.splice(0)) off()
  }

  witness(name: string): Witness {
    return {
      fault: (what) => this.fault(`${name}: ${what}`),
      check: (error, what) => this.check(error, what, name),
    }
  }

  fault(what: string): void {
    if (this.faults.length < MAX_FAULTS) this.faults.push(what)
  }

  /** An error that somebody got. It is one of ours, with a code, and never one that nobody has thought of. */
  check(error: unknown, what: string, name = 'some session'): void {
    const code = error instanceof ProxyError ? error.code : undefined
    if (code === undefined || !CODE.test(code) || code === 'PROXY_ERR_INTERNAL') {
      this.fault(`${name}: ${what}: ${describe(error)}`)
    }
    const key = `${what}: ${code ?? 'no code'}`
    this.codes.set(key, (this.codes.get(key) ?? 0) + 1)
  }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause instanceof Error ? `\n  caused by ${error.cause.stack}` : ''
  return `${error.stack}${cause}`
}
