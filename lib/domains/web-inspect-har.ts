import type { ShownBody } from './web-inspect-body.ts'
import { exchangeOf, type InspectedExchange, type ShownHeader, type ShownMessage } from './web-inspect-show.ts'
import type { Recording } from './web-recording.ts'

/** An HTTP Archive 1.2 (http://www.softwareishard.com/blog/har-12-spec/). */
export interface Har {
  readonly log: {
    readonly version: '1.2'
    readonly creator: { readonly name: string; readonly version: string }
    readonly entries: readonly HarEntry[]
  }
}

export interface HarEntry {
  readonly startedDateTime: string
  readonly time: number
  readonly request: object
  readonly response: object
  readonly cache: object
  readonly timings: object
  readonly comment?: string | undefined
}

/** Of what does not say what it is (RFC 9110 section 8.3). */
const UNKNOWN_TYPE = 'application/octet-stream'
/** Characters of all bodies: beyond that they are left out. */
const MOST = 16_777_216
/** Of one, in bytes. */
const LONGEST = 262_144

/** The oldest first. */
export async function harOf(recordings: readonly Recording[], version: string): Promise<Har> {
  const entries: HarEntry[] = []
  let room = MOST
  for (const recording of recordings) {
    const exchange = await exchangeOf(recording, Math.min(LONGEST, room))
    for (const { body } of [exchange.request, exchange.answer ?? { headers: [] }]) room -= body?.text.length ?? 0
    room = Math.max(0, room)
    entries.push(entryOf(exchange))
  }
  return { log: { version: '1.2', creator: { name: 'symport', version }, entries } }
}

function entryOf(exchange: InspectedExchange): HarEntry {
  const { id, time, from, mapping, replayOf, state, problem } = exchange
  const { waited = 0, took = waited } = exchange
  const receive = Math.max(0, Math.round((took - waited) * 10) / 10)
  const said = [
    `symport ${id}`,
    mapping === undefined ? '' : `mapping ${mapping}`,
    from === undefined ? '' : `from ${from}`,
    replayOf === undefined ? '' : `replay of ${replayOf}`,
    state === 'done' ? '' : state === 'open' ? 'still under way' : 'broken off',
    problem ?? '',
  ]
  return {
    startedDateTime: time,
    time: waited + receive,
    request: requestOf(exchange),
    response: responseOf(exchange),
    cache: {},
    timings: { blocked: -1, dns: -1, connect: -1, ssl: -1, send: 0, wait: waited, receive },
    comment: said.filter((part) => part !== '').join(', '),
  }
}

function requestOf({ method, url, httpVersion, request, bytesIn }: InspectedExchange): object {
  const { body } = request
  return {
    ...{ method, url, httpVersion: `HTTP/${httpVersion}` },
    cookies: valuesOf(request, 'cookie').flatMap((value) => value.split(';').map(cookieOf)),
    headers: request.headers,
    queryString: queryOf(url),
    ...(body ? { postData: { mimeType: body.type || UNKNOWN_TYPE, ...contentOf(body, '_encoding') } } : {}),
    headersSize: -1,
    bodySize: bytesIn,
  }
}

function responseOf({ answer, httpVersion, bytesOut, problem }: InspectedExchange): object {
  const body = answer?.body
  return {
    ...{ status: answer?.status ?? 0, statusText: answer?.reason ?? '', httpVersion: `HTTP/${httpVersion}` },
    cookies: answer ? valuesOf(answer, 'set-cookie').map(setCookieOf) : [],
    headers: answer?.headers ?? [],
    content: {
      size: body?.coding === undefined ? bytesOut : Buffer.byteLength(body.text),
      mimeType: body?.type || (answer && valuesOf(answer, 'content-type')[0]) || UNKNOWN_TYPE,
      ...(body ? contentOf(body, 'encoding') : {}),
    },
    redirectURL: (answer && valuesOf(answer, 'location')[0]) ?? '',
    headersSize: -1,
    bodySize: bytesOut,
    ...(problem === undefined ? {} : { _error: problem }),
  }
}

/** Of requests the format has no field for what a text is written in, and leaves names like `_encoding` to whoever wants one. */
function contentOf({ text, encoding, truncated, coding }: ShownBody, field: 'encoding' | '_encoding'): object {
  const said = [truncated ? 'truncated' : '', coding === undefined ? '' : `decoded from ${coding}`]
  const comment = said.filter((part) => part !== '').join(', ')
  return { text, ...(encoding === 'base64' ? { [field]: encoding } : {}), ...(comment === '' ? {} : { comment }) }
}

function valuesOf({ headers }: ShownMessage, wanted: string): string[] {
  return headers.flatMap(({ name, value }) => (name.toLowerCase() === wanted ? [value] : []))
}

function cookieOf(pair: string): ShownHeader {
  const [name = '', ...value] = pair.trimStart().split('=')
  return { name, value: value.join('=').trimEnd() }
}

function setCookieOf(text: string): object {
  const [pair = '', ...attributes] = text.split(';')
  const said = new Map(attributes.map(cookieOf).map(({ name, value }) => [name.toLowerCase(), value]))
  const path = said.get('path')
  const domain = said.get('domain')
  const ends = Date.parse(said.get('expires') ?? '')
  return {
    ...cookieOf(pair),
    ...(path === undefined ? {} : { path }),
    ...(domain === undefined ? {} : { domain }),
    ...(Number.isNaN(ends) ? {} : { expires: new Date(ends).toISOString() }),
    httpOnly: said.has('httponly'),
    secure: said.has('secure'),
  }
}

function queryOf(url: string): ShownHeader[] {
  const query = /^[^?#]*\?([^#]*)/s.exec(url)?.[1] ?? ''
  return [...new URLSearchParams(query)].map(([name, value]) => ({ name, value }))
}
