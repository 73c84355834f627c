import { createHmac } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { v4 as uuid } from 'uuid'
import { ProxyError } from '../core/errors.ts'
import type { HubEvent } from '../hub/events.ts'
import { type EventJson, eventJson } from './event-json.ts'

export interface WebhookOptions {
  readonly url: string
  /** Signs what is sent: `x-symport-signature: sha256=HEX`, HMAC-SHA256 of the body. */
  readonly secret?: string | undefined
  /** Before the second try, in ms; doubled before the third. Default 1,000. */
  readonly backoff?: number | undefined
  /** For one try, in ms. Default 5,000. */
  readonly timeout?: number | undefined
  /** Events that wait at most; the oldest are dropped. Default 1,000. */
  readonly queue?: number | undefined
}

const TRIES = 3
const BACKOFF = 1000
const TIMEOUT = 5000
const LONGEST_QUEUE = 1000

/** Tells a URL when a node comes and goes, in order, one at a time, and never in the way of anything else. */
export class Webhook {
  readonly #url: URL
  readonly #options: WebhookOptions
  readonly #onError: (error: ProxyError) => void
  readonly #queue: EventJson[] = []
  readonly #closing = new AbortController()
  #sending: Promise<void> | undefined
  /** Whether the last one failed: that is told once, not for each. */
  #failing = false

  /** @throws ProxyError PROXY_ERR_USAGE */
  constructor(options: WebhookOptions, onError: (error: ProxyError) => void) {
    this.#options = options
    this.#onError = onError
    this.#url = readUrl(options.url)
  }

  readonly tell = (event: HubEvent): void => {
    if ((event.type !== 'connected' && event.type !== 'disconnected') || this.#closing.signal.aborted) return
    this.#queue.push(eventJson(event))
    if (this.#queue.length > (this.#options.queue ?? LONGEST_QUEUE)) this.#queue.shift()
    this.#sending ??= this.#send().finally(() => {
      this.#sending = undefined
    })
  }

  /** What waits has until `patience` ms are over. */
  async close(patience: number): Promise<void> {
    const timer = setTimeout(() => this.#closing.abort(), patience)
    await this.#sending
    clearTimeout(timer)
    this.#closing.abort()
  }

  async #send(): Promise<void> {
    for (let event = this.#queue.shift(); event && !this.#closing.signal.aborted; event = this.#queue.shift()) {
      // Tries of one event have one id, so that a receiver can tell.
      const problem = await this.#deliver(JSON.stringify({ id: uuid(), ...event }))
      if (problem !== undefined && !this.#failing && !this.#closing.signal.aborted) {
        // The path may be what authorises the sender.
        this.#onError(new ProxyError('PROXY_ERR_WEBHOOK', `the webhook at ${this.#url.origin} fails: ${problem}`))
      }
      this.#failing = problem !== undefined
    }
  }

  /** Answers what is wrong, if it could not be delivered. */
  async #deliver(body: string): Promise<string | undefined> {
    const { signal } = this.#closing
    let problem: string | undefined
    for (let tries = 0; tries < TRIES; tries++) {
      if (tries > 0) {
        const wait = (this.#options.backoff ?? BACKOFF) * 2 ** (tries - 1)
        await delay(wait, undefined, { signal }).catch(() => undefined)
      }
      if (signal.aborted) return problem ?? 'the server stops'
      const { status, error } = await this.#post(body)
      if (status !== undefined && status >= 200 && status < 300) return undefined
      problem = error ?? `it answers ${status}`
      // Asking again changes nothing about a redirect or a request that is refused.
      if (status !== undefined && status < 500 && status !== 408 && status !== 429) return problem
    }
    return problem
  }

  async #post(body: string): Promise<{ status?: number; error?: string }> {
    const { secret, timeout = TIMEOUT } = this.#options
    const headers: Record<string, string> = { 'content-type': 'application/json' }
    if (secret !== undefined) {
      headers['x-symport-signature'] = `sha256=${createHmac('sha256', secret).update(body).digest('hex')}`
    }
    // Not AbortSignal.any with AbortSignal.timeout: Node 20 may collect these before they fire.
    const stop = new AbortController()
    let late = false
    const timer = setTimeout(() => {
      late = true
      stop.abort()
    }, timeout)
    const end = (): void => stop.abort()
    this.#closing.signal.addEventListener('abort', end)
    try {
      const request = { method: 'POST', body, headers, signal: stop.signal, redirect: 'manual' } as const
      const answer = await fetch(this.#url, request)
      await answer.body?.cancel()
      return { status: answer.status }
    } catch (error) {
      return { error: late ? `no answer in ${timeout / 1000} s` : reason(error) }
    } finally {
      clearTimeout(timer)
      this.#closing.signal.removeEventListener('abort', end)
    }
  }
}

function readUrl(text: string): URL {
  const bad = (why: string): ProxyError => new ProxyError('PROXY_ERR_USAGE', `the webhook's URL ${why}`)
  if (!URL.canParse(text)) throw bad('is not one: write https://host/path')
  const url = new URL(text)
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw bad('begins with http:// or https://')
  if (url.username !== '' || url.password !== '') throw bad('has a user in it: sign with a secret instead')
  return url
}

function reason(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  return cause instanceof Error ? cause.message : String(cause)
}
