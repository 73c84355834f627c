import type { IncomingMessage, RequestOptions } from 'node:http'
import { ProxyError } from '../core/index.ts'
import { dialError } from './dial.ts'
import { responseOf, textOf } from './http-answer.ts'
import { formatRemote } from './remote.ts'
import { tlsError } from './verify.ts'

/** Bytes of an answer: all that Caddy has of HTTP. */
const LONGEST_ANSWER = 8 * 1024 * 1024
/** A change takes Caddy as long as it takes it to start anew. */
const READ_TIMEOUT = 10_000
const WRITE_TIMEOUT = 30_000
const LONGEST_REASON = 300
const LONGEST_ETAG = 1000

/** Where Caddy's admin API is. */
export interface CaddyPlace {
  /** For people: `http://127.0.0.1:2019`. */
  readonly name: string
  readonly at: { readonly host: string; readonly port: number; readonly secure: boolean } | { readonly path: string }
}

export interface CaddyRequest {
  readonly method: 'GET' | 'PUT' | 'POST' | 'PATCH' | 'DELETE'
  /** As it is sent: escaped. */
  readonly path: string
  readonly body?: unknown
  /** What the config has to be as: otherwise the answer is 412, and nothing is changed. */
  readonly etag?: string | undefined
  readonly signal: AbortSignal
}

export interface CaddyAnswer {
  readonly status: number
  readonly etag: string | undefined
  /** What the JSON says; undefined if there is none. */
  readonly value: unknown
}

export interface CaddyTimeouts {
  /** In ms, for a whole answer. */
  readonly read: number
  readonly write: number
}

/**
 * The admin API of Caddy (https://caddyserver.com/docs/api). It keeps the connection of the last question open, since Caddy
 * closes that when it stops, and when its config becomes another one: `onClosed` says so, without any asking.
 */
export class CaddyApi {
  readonly place: CaddyPlace
  readonly #timeouts: CaddyTimeouts
  readonly #agents: { destroy(): void }[] = []
  #options: RequestOptions | undefined
  onClosed: () => void = () => {}

  constructor(place: CaddyPlace, timeouts: Partial<CaddyTimeouts> = {}) {
    this.place = place
    this.#timeouts = { read: READ_TIMEOUT, write: WRITE_TIMEOUT, ...timeouts }
  }

  /** @throws ProxyError PROXY_ERR_CADDY if there is no answer, or none that Caddy would give */
  async call({ method, path, body, etag, signal }: CaddyRequest): Promise<CaddyAnswer> {
    const { at } = this.place
    const secure = 'secure' in at && at.secure
    const http = secure ? await import('node:https') : await import('node:http')
    this.#options ??= this.#connection(new http.Agent({ keepAlive: true, maxSockets: 1, maxFreeSockets: 1 }))
    const text = body === undefined ? undefined : JSON.stringify(body)
    const headers: Record<string, string> = {
      // A Unix socket has no name, and Caddy wants none to be said.
      host: 'host' in at ? formatRemote(at.host, at.port) : '',
      ...(text === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(text)) }),
      ...(etag === undefined ? {} : { 'if-match': etag }),
    }
    const stop = new AbortController()
    const time = method === 'GET' ? this.#timeouts.read : this.#timeouts.write
    let late = false
    const timer = setTimeout(() => {
      late = true
      stop.abort()
    }, time)
    const end = (): void => stop.abort()
    signal.addEventListener('abort', end)
    if (signal.aborted) end()
    try {
      const options = { ...this.#options, method, path, headers, setHost: false, signal: stop.signal }
      const response = await responseOf(() => http.request(options), text)
      return await this.#read(response, method)
    } catch (error) {
      if (error instanceof ProxyError) throw error
      if (signal.aborted) throw new ProxyError('PROXY_ERR_ABORTED', 'given up by the caller')
      throw this.#problem(late ? `no answer from ${this.place.name} in ${time / 1000} s` : this.#reasonOf(error), error)
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
    }
  }

  close(): void {
    this.onClosed = () => {}
    for (const agent of this.#agents) agent.destroy()
  }

  #connection(agent: NonNullable<RequestOptions['agent']> & { destroy(): void }): RequestOptions {
    this.#agents.push(agent)
    const { at } = this.place
    return 'path' in at ? { agent, socketPath: at.path } : { agent, host: at.host, port: at.port }
  }

  async #read(response: IncomingMessage, method: string): Promise<CaddyAnswer> {
    const { socket, statusCode: status = 0, headers } = response
    const text = await textOf(response, LONGEST_ANSWER)
    if (text === undefined) {
      throw this.#problem(`the answer of ${this.place.name} is longer than ${LONGEST_ANSWER / 1024 / 1024} MiB`)
    }
    // After a change Caddy closes it in any case.
    if (method === 'GET' && headers.connection?.toLowerCase() !== 'close') {
      if (socket.destroyed) this.onClosed()
      else if (socket.listenerCount('close', this.#onSocketClosed) === 0) socket.once('close', this.#onSocketClosed)
    }
    // Caddy reckons it while it writes, and sends it behind the body.
    const etag = response.trailers.etag ?? headers.etag
    return {
      status,
      etag:
        etag !== undefined && etag.length <= LONGEST_ETAG && /^"[\x20\x21\x23-\x7e]+"$/.test(etag) ? etag : undefined,
      value: text.trim() === '' ? undefined : this.#parse(text, status),
    }
  }

  readonly #onSocketClosed = (): void => this.onClosed()

  #parse(text: string, status: number): unknown {
    try {
      return JSON.parse(text)
    } catch (error) {
      if (status >= 400) return undefined
      throw this.#problem(`what answers at ${this.place.name} is not its admin API`, error)
    }
  }

  #reasonOf(error: unknown): string {
    const { at } = this.place
    const name = 'path' in at ? at.path : formatRemote(at.host, at.port)
    return (tlsError(error, { by: 'system' }, name) ?? dialError(error, name)).message
  }

  #problem(why: string, cause?: unknown): ProxyError {
    return caddyError(`Caddy cannot be asked: ${why}`, cause)
  }
}

/** What Caddy says about a request that it does not like, on one line. */
export function reasonOf({ status, value }: CaddyAnswer): string {
  const said = typeof value === 'object' && value !== null && 'error' in value ? value.error : undefined
  if (typeof said !== 'string' || said === '') return `it answers ${status}`
  const line = said.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ')
  return line.length > LONGEST_REASON ? `${line.slice(0, LONGEST_REASON - 1)}…` : line
}

export function caddyError(message: string, cause?: unknown): ProxyError {
  return new ProxyError('PROXY_ERR_CADDY', message, { cause, retryable: true })
}
