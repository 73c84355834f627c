import { isoTime } from './iso-time.ts'
import { type ShownBody, showBody } from './web-inspect-body.ts'
import { type Mask, maskHeaders, maskUrl } from './web-inspect-mask.ts'
import type { Recording } from './web-recording.ts'

/** One request that was recorded, in short. Secrets are masked. Times in ms. */
export interface InspectedRequest {
  readonly id: string
  /** When it came, in ISO 8601. */
  readonly time: string
  readonly mapping?: string | undefined
  /** `open`: it is under way. `cut`: it ended before all of the answer was sent. */
  readonly state: 'open' | 'done' | 'cut'
  readonly method: string
  readonly url: string
  readonly from?: string | undefined
  readonly status?: number | undefined
  /** Who has answered: the target, or this server in its place. */
  readonly by?: 'target' | 'here' | undefined
  /** Why the target has not answered. */
  readonly problem?: string | undefined
  /** From the head of the request to the head of the answer. */
  readonly waited?: number | undefined
  /** To the end of all. */
  readonly took?: number | undefined
  /** Bytes of the bodies. */
  readonly bytesIn: number
  readonly bytesOut: number
  readonly websocket?: boolean | undefined
  /** The id of the one that was asked again. */
  readonly replayOf?: string | undefined
}

export interface ShownHeader {
  readonly name: string
  readonly value: string
}

export interface ShownMessage {
  readonly headers: readonly ShownHeader[]
  readonly trailers?: readonly ShownHeader[] | undefined
  /** The head was longer than what is kept. */
  readonly cut?: boolean | undefined
  readonly body?: ShownBody | undefined
}

/** All that is known of it. */
export interface InspectedExchange extends InspectedRequest {
  readonly httpVersion: string
  readonly request: ShownMessage
  readonly answer?: (ShownMessage & { readonly status: number; readonly reason: string }) | undefined
}

export interface InspectQuery {
  readonly mapping?: string | undefined
  /** With or without the port. */
  readonly host?: string | undefined
  readonly method?: string | undefined
  /** `404`, or `4xx`. */
  readonly status?: string | undefined
  /** A part of the path and query, as they are shown. */
  readonly path?: string | undefined
  /** An id, or a time in ISO 8601: what came later. */
  readonly since?: string | undefined
  readonly limit?: number | undefined
}

const LIMIT = 100

export function summaryOf(recording: Recording): InspectedRequest {
  const { id, at, mapping, state, method, origin, answer, by, problem, waited, took, asked, answered } = recording
  return without({
    ...{ id, time: at.toISOString(), mapping, state, method, url: urlOf(recording), from: origin.remote },
    ...{ status: answer?.status, by, problem, waited: rounded(waited), took: rounded(took) },
    ...{ bytesIn: asked.size, bytesOut: answered.size },
    websocket: recording.isUpgraded || undefined,
    replayOf: recording.replayOf,
  })
}

/** `most`: bytes of a body, decoded. */
export async function exchangeOf(recording: Recording, most?: number): Promise<InspectedExchange> {
  const { answer, asked, answered, headers, trailers, isHeadCut, httpVersion } = recording
  const [request, response] = await Promise.all([
    showBody(asked, headers, { most }),
    answer && showBody(answered, answer.headers, { most }),
  ])
  return without({
    ...summaryOf(recording),
    httpVersion,
    request: messageOf(maskHeaders(headers), trailers.asked, isHeadCut, request),
    answer: answer && {
      ...{ status: answer.status, reason: shownText(answer.reason) },
      ...messageOf(answer.headers, trailers.answered, answer.cut, response),
    },
  })
}

/** As a visitor writes it. */
export function urlOf({ origin, authority, url }: Recording, mask?: Mask): string {
  const isAbsolute = /^https?:\/\//i.test(url)
  const whole = isAbsolute ? url : `${origin.secure ? 'https' : 'http'}://${authority || 'localhost'}${url}`
  return maskUrl(whole, mask)
}

/** The newest first. */
export function select(recordings: readonly Recording[], query: InspectQuery): Recording[] {
  const { limit = LIMIT } = query
  const wanted = filterOf(query)
  const found: Recording[] = []
  for (const recording of recordings) {
    if (recording.id === query.since || found.length >= limit) break
    if (wanted(recording)) found.push(recording)
  }
  return found
}

export function filterOf({ mapping, host, method, status, path, since }: InspectQuery): (one: Recording) => boolean {
  const after = isoTime(since ?? '') ?? Number.NEGATIVE_INFINITY
  const name = host?.toLowerCase()
  const verb = method?.toUpperCase()
  return (one) => {
    if (mapping !== undefined && one.mapping !== mapping) return false
    if (verb !== undefined && one.method.toUpperCase() !== verb) return false
    const authority = one.authority.toLowerCase()
    if (name !== undefined && authority !== name && authority.replace(/:\d*$/, '') !== name) return false
    if (status !== undefined && !isStatus(one.answer?.status, status)) return false
    // What is masked is no answer to guesses.
    if (path !== undefined && !maskUrl(one.url.replace(/^https?:\/\/[^/?#]*/i, '')).includes(path)) return false
    return one.at.getTime() > after
  }
}

/** Headers are bytes: what is UTF-8 is shown as what it says. */
function shownText(text: string): string {
  if (!/[\x80-\xff]/.test(text) || /[^\0-\xff]/.test(text)) return text
  const bytes = Buffer.from(text, 'latin1')
  const utf8 = bytes.toString('utf8')
  return Buffer.from(utf8, 'utf8').equals(bytes) ? utf8 : text
}

function headersOf(list: readonly string[]): ShownHeader[] {
  const headers: ShownHeader[] = []
  for (let i = 0; i + 1 < list.length; i += 2)
    headers.push({ name: list[i] ?? '', value: shownText(list[i + 1] ?? '') })
  return headers
}

function messageOf(
  headers: readonly string[],
  trailers: readonly string[],
  cut: boolean,
  body: ShownBody | undefined,
): ShownMessage {
  const behind = trailers.length > 0 ? headersOf(trailers) : undefined
  return without({ headers: headersOf(headers), trailers: behind, cut: cut || undefined, body })
}

function isStatus(status: number | undefined, wanted: string): boolean {
  const text = String(status ?? '')
  return /^\dxx$/i.test(wanted) ? text.startsWith(wanted.charAt(0)) && text.length === 3 : text === wanted
}

function rounded(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.round(ms * 10) / 10
}

/** What is not there is left out. */
function without<T extends object>(value: T): T {
  for (const [key, inner] of Object.entries(value)) if (inner === undefined) Reflect.deleteProperty(value, key)
  return value
}
