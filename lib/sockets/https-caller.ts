import type { IncomingHttpHeaders } from 'node:http'
import type { Agent } from 'node:https'
import { ProxyError } from '../core/index.ts'
import { dialError } from './dial.ts'
import { responseOf, textOf } from './http-answer.ts'
import { Lazy } from './lazy.ts'
import { tlsError, type Verify, type VerifyByPin, verifySettings } from './verify.ts'

/** Bytes of an answer. */
const LONGEST_ANSWER = 256 * 1024
const TIMEOUT = 30_000
/** Connections to one host at once. */
const MOST_SOCKETS = 4

export interface HttpsRequest {
  readonly method: string
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string | undefined
  readonly signal?: AbortSignal | undefined
}

export interface HttpsAnswer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

/** By a pin nothing would be verified here: that takes a look at each connection, which an `Agent` does not give. */
export type VerifyCaller = Exclude<Verify, VerifyByPin>

/** Small requests over HTTPS to somebody whose certificate is verified. No redirect is followed, no proxy asked. */
export class HttpsCaller {
  readonly #verify: VerifyCaller
  readonly #agent: Lazy<Agent>
  #closed = false

  constructor(verify: VerifyCaller) {
    this.#verify = verify
    this.#agent = new Lazy(() => loadAgent(verify))
  }

  /** @throws ProxyError PROXY_ERR_DIAL_FAILED, PROXY_ERR_TLS, PROXY_ERR_ABORTED */
  async call({ method, url, headers, body, signal }: HttpsRequest): Promise<HttpsAnswer> {
    if (!URL.canParse(url) || !url.startsWith('https://')) {
      throw new ProxyError('PROXY_ERR_DIAL_FAILED', 'a URL without https:// is not asked')
    }
    const { host } = new URL(url)
    const [{ request }, agent] = await Promise.all([import('node:https'), this.#agent.get()])
    if (signal?.aborted || this.#closed) throw givenUp()
    const sent = { ...headers, ...(body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) }) }
    const late = AbortSignal.timeout(TIMEOUT)
    try {
      const options = { agent, method, headers: sent, signal: signal ? AbortSignal.any([signal, late]) : late }
      const response = await responseOf(() => request(url, options), body)
      const text = await textOf(response, LONGEST_ANSWER)
      if (text === undefined) throw new ProxyError('PROXY_ERR_DIAL_FAILED', `the answer of ${host} is too long`)
      return { status: response.statusCode ?? 0, headers: response.headers, text }
    } catch (error) {
      if (error instanceof ProxyError) throw error
      if (signal?.aborted) throw givenUp()
      if (late.aborted)
        throw new ProxyError('PROXY_ERR_DIAL_FAILED', `no answer from ${host} in time`, { cause: error })
      throw tlsError(error, this.#verify, host) ?? dialError(error, host)
    }
  }

  close(): void {
    this.#closed = true
    this.#agent.ifMade((agent) => agent.destroy())
  }
}

async function loadAgent(verify: VerifyCaller): Promise<Agent> {
  const [{ Agent }, settings] = await Promise.all([import('node:https'), verifySettings(verify)])
  return new Agent({ keepAlive: true, maxSockets: MOST_SOCKETS, minVersion: 'TLSv1.2', ...settings })
}

function givenUp(): ProxyError {
  return new ProxyError('PROXY_ERR_ABORTED', 'given up by the caller')
}
