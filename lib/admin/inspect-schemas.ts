import * as v from 'valibot'
import { isoTime } from '../domains/iso-time.ts'
import type { CurlCommand, Har, InspectedExchange, InspectedRequest, InspectQuery } from '../domains/web-inspection.ts'
import type { Schema } from './schemas.ts'

const word = (longest: number) => v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(longest)))
const count = v.pipe(v.number(), v.minValue(0))
const time = v.string()

const which = { mapping: word(200), host: word(300) }
const some = {
  ...which,
  method: v.optional(v.pipe(v.string(), v.regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}$/, 'is not a method'))),
  status: v.optional(v.pipe(v.string(), v.regex(/^[1-5](?:\d\d|xx)$/i, 'is no status: write 404 or 4xx'))),
  path: word(2000),
  since: v.optional(
    v.pipe(
      v.string(),
      v.check((text) => /^[a-z]{3}\d{1,15}$/.test(text) || isoTime(text) !== undefined, 'is neither an id nor a time'),
    ),
  ),
  limit: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1000))),
}

export const requestsQuery: Schema<InspectQuery> = v.strictObject(some)
export const harQuery: Schema<InspectQuery & { id?: string | undefined }> = v.strictObject({ ...some, id: word(40) })
export const clearQuery: Schema<Pick<InspectQuery, 'mapping' | 'host'>> = v.strictObject(which)
export const requestParams: Schema<{ id: string }> = v.strictObject({
  id: v.pipe(v.string(), v.minLength(1), v.maxLength(40)),
})

const summary = {
  id: v.string(),
  time,
  mapping: v.exactOptional(v.string()),
  state: v.picklist(['open', 'done', 'cut']),
  method: v.string(),
  url: v.string(),
  from: v.exactOptional(v.string()),
  status: v.exactOptional(count),
  by: v.exactOptional(v.picklist(['target', 'here'])),
  problem: v.exactOptional(v.string()),
  waited: v.exactOptional(count),
  took: v.exactOptional(count),
  bytesIn: count,
  bytesOut: count,
  websocket: v.exactOptional(v.boolean()),
  replayOf: v.exactOptional(v.string()),
}
const headers = v.array(v.looseObject({ name: v.string(), value: v.string() }))
const message = {
  headers,
  trailers: v.exactOptional(headers),
  cut: v.exactOptional(v.boolean()),
  body: v.exactOptional(
    v.looseObject({
      size: count,
      type: v.exactOptional(v.string()),
      encoding: v.picklist(['utf8', 'base64']),
      text: v.string(),
      truncated: v.boolean(),
      coding: v.exactOptional(v.string()),
    }),
  ),
}

const inspectedRequest: Schema<InspectedRequest> = v.looseObject(summary)
export const requestList: Schema<InspectedRequest[]> = v.array(inspectedRequest)
export const inspectedExchange: Schema<InspectedExchange> = v.looseObject({
  ...summary,
  httpVersion: v.string(),
  request: v.looseObject(message),
  answer: v.exactOptional(v.looseObject({ ...message, status: count, reason: v.string() })),
})
export const curlCommand: Schema<CurlCommand> = v.looseObject({
  command: v.string(),
  placeholders: v.array(v.string()),
  notes: v.array(v.string()),
})
const anything = v.looseObject({})
export const har: Schema<Har> = v.looseObject({
  log: v.looseObject({
    version: v.literal('1.2'),
    creator: v.looseObject({ name: v.string(), version: v.string() }),
    entries: v.array(
      v.looseObject({
        startedDateTime: time,
        time: count,
        request: anything,
        response: anything,
        cache: anything,
        timings: anything,
        comment: v.exactOptional(v.string()),
      }),
    ),
  }),
})
export const cleared: Schema<{ cleared: number }> = v.looseObject({ cleared: count })
