import type { ServerResponse } from 'node:http'
import { ProxyError } from '../core/errors.ts'
import type { HubEvent } from '../hub/events.ts'
import { eventJson } from './event-json.ts'

const MOST_READERS = 64
/** What may wait for one reader, in bytes. */
const MOST_WAITING = 1024 * 1024
/** Often enough for proxies that cut what is silent. */
const PING_EVERY = 15_000

/** Those who read events as they happen (Server-Sent Events, HTML Living Standard, section 9.2). */
export class EventStreams {
  readonly #subscribe: (listener: (event: HubEvent) => void) => () => void
  readonly #pingEvery: number
  readonly #readers = new Set<ServerResponse>()
  #unsubscribe: (() => void) | undefined
  #ping: NodeJS.Timeout | undefined

  constructor(
    subscribe: (listener: (event: HubEvent) => void) => () => void,
    options: { pingEvery?: number | undefined } = {},
  ) {
    this.#subscribe = subscribe
    this.#pingEvery = options.pingEvery ?? PING_EVERY
  }

  get size(): number {
    return this.#readers.size
  }

  /** @throws ProxyError PROXY_ERR_TOO_MANY_READERS */
  add(response: ServerResponse): void {
    if (this.#readers.size >= MOST_READERS) {
      throw new ProxyError('PROXY_ERR_TOO_MANY_READERS', `${MOST_READERS} read events already`, { retryable: true })
    }
    this.#readers.add(response)
    response.on('close', () => this.#remove(response))
    response.on('error', () => response.destroy())
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
      'x-content-type-options': 'nosniff',
    })
    // So that whoever asked sees at once that it works.
    response.write(':\n\n')
    this.#unsubscribe ??= this.#subscribe((event) => this.#tell(event))
    this.#ping ??= setInterval(() => this.#send(':\n\n'), this.#pingEvery)
  }

  close(): void {
    for (const reader of this.#readers) {
      this.#remove(reader)
      reader.end()
    }
  }

  #tell(event: HubEvent): void {
    const json = eventJson(event)
    this.#send(`event: ${json.type}\ndata: ${JSON.stringify(json)}\n\n`)
  }

  #send(text: string): void {
    for (const reader of this.#readers) {
      reader.write(text)
      // It may come back, and asks for the state first: an event that it missed is no loss then.
      if (reader.writableLength <= MOST_WAITING) continue
      this.#remove(reader)
      reader.destroy()
    }
  }

  #remove(reader: ServerResponse): void {
    this.#readers.delete(reader)
    if (this.#readers.size > 0) return
    clearInterval(this.#ping)
    this.#ping = undefined
    this.#unsubscribe?.()
    this.#unsubscribe = undefined
  }
}
