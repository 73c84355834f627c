import { ProxyError } from '../core/errors.ts'
import { shown } from './text.ts'
import type { CurlCommand } from './web-inspect-curl.ts'
import type { Har } from './web-inspect-har.ts'
import {
  exchangeOf,
  filterOf,
  type InspectedExchange,
  type InspectedRequest,
  type InspectQuery,
  select,
  summaryOf,
} from './web-inspect-show.ts'
import type { Recording } from './web-recording.ts'
import type { WebServing } from './web-serving.ts'

export type { CurlCommand } from './web-inspect-curl.ts'
export type { Har } from './web-inspect-har.ts'
export type { InspectedExchange, InspectedRequest, InspectQuery } from './web-inspect-show.ts'

/** Each of them asks a target, and waits for it. */
const MOST_REPLAYS = 8

/** What the operator can see of the requests that were recorded. Secrets are masked in all of it. */
export class Inspection {
  readonly #web: WebServing
  #replays = 0

  constructor(web: WebServing) {
    this.#web = web
  }

  /** The newest first. */
  list(query: InspectQuery): InspectedRequest[] {
    return select(this.#web.recorder.list(), query).map(summaryOf)
  }

  /** @throws ProxyError PROXY_ERR_NOT_FOUND */
  async show(id: string): Promise<InspectedExchange> {
    return await exchangeOf(this.#find(id))
  }

  /** @throws ProxyError PROXY_ERR_NOT_FOUND */
  async curl(id: string): Promise<CurlCommand> {
    const recording = this.#find(id)
    const { curlOf } = await import('./web-inspect-curl.ts')
    return await curlOf(recording)
  }

  /** `version`: of this program. */
  async har(query: InspectQuery & { readonly id?: string | undefined }, version: string): Promise<Har> {
    const found = query.id === undefined ? select(this.#web.recorder.list(), query) : [this.#find(query.id)]
    const { harOf } = await import('./web-inspect-har.ts')
    return await harOf(found.reverse(), version)
  }

  /** @throws ProxyError PROXY_ERR_NOT_FOUND, PROXY_ERR_REPLAY */
  async replay(id: string): Promise<InspectedExchange> {
    const recording = this.#find(id)
    if (this.#replays >= MOST_REPLAYS) {
      throw new ProxyError('PROXY_ERR_REPLAY', `${MOST_REPLAYS} are replayed already`, { retryable: true })
    }
    this.#replays++
    try {
      const { replay } = await import('./web-inspect-replay.ts')
      return await exchangeOf(await replay(this.#web, recording))
    } finally {
      this.#replays--
    }
  }

  /** Answers how many were forgotten. */
  clear(query: InspectQuery): number {
    return this.#web.recorder.clear(filterOf(query))
  }

  #find(id: string): Recording {
    const recording = this.#web.recorder.get(id)
    if (recording) return recording
    throw new ProxyError('PROXY_ERR_NOT_FOUND', `there is no request ${shown(id)}: only the last ones are kept`)
  }
}
