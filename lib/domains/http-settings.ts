import * as v from 'valibot'
import { BY_EACH_HOP, plainHeader } from './header-names.ts'
import { readPasswordHash } from './password-hash.ts'
import { isHiddenHeader } from './secret-names.ts'

/** What is done to the requests of a listener at the web port, and to their answers. */
export interface HttpSettings {
  /** Who may ask: names, each with what `hashPassword` makes of the password. Default: all. */
  readonly basicAuth?: { readonly [name: string]: string } | undefined
  /**
   * Headers of requests, by name: what the target gets instead, or `null` for a header that it does not get. Not those
   * that say where a message ends, whom it is for, or what holds for one connection only.
   */
  readonly requestHeaders?: HeaderRules | undefined
  /** The same of the target's answers, for the visitor. */
  readonly responseHeaders?: HeaderRules | undefined
  /** What the target gets as `Host`: `rewrite` is its own address. Default: what the visitor wrote. */
  readonly hostHeader?: string | undefined
  /** Every visitor gets this page, with status 503: HTML if it begins with `<`, or plain text. `true`: one of our own. */
  readonly maintenance?: boolean | string | undefined
  /** Whether the last requests and answers are kept for the operator to look at. Default: not. */
  readonly inspect?: boolean | undefined
}

export interface HeaderRules {
  readonly [name: string]: string | null
}

/** `hostHeader` that is no host: the target's own. */
export const REWRITE = 'rewrite'

/** `HttpSettings` as they are asked for: a password may be told as it is. Only its hash is kept. */
export interface HttpRequest extends Omit<HttpSettings, 'basicAuth'> {
  readonly basicAuth?: { readonly [name: string]: string | { readonly password: string } } | undefined
}

/** What is wrong about a header that is asked for as it was shown. */
export const NO_VALUE = '(hidden) stands for a value that is not shown: write the value itself'

const MOST_HEADERS = 100
const LONGEST_VALUE = 8192
const LONGEST_PAGE = 65_536
const MOST_NAMES = 1000

/** RFC 9110 section 5.6.2. */
const token = v.pipe(
  v.string('a name'),
  v.regex(/^[!#$%&'*+.^_`|~0-9a-z-]{1,256}$/i, 'the name of a header'),
  v.check(
    // For `Host` there is `hostHeader`.
    (name) => !BY_EACH_HOP.has(plainHeader(name)),
    (issue) => `a header that rules may change: ${issue.input} is not one of them`,
  ),
)
/** RFC 9110 section 5.5, without what is obsolete. */
const value = v.pipe(
  v.string('a text'),
  v.maxLength(LONGEST_VALUE, `at most ${LONGEST_VALUE} characters`),
  v.regex(/^(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?$/, 'the value of a header: printable ASCII on one line'),
)
const headers = v.optional(
  v.pipe(
    v.record(token, v.nullable(value)),
    v.check((all) => Object.keys(all).length <= MOST_HEADERS, `at most ${MOST_HEADERS} headers`),
    v.check((all) => {
      const names = Object.keys(all).map(plainHeader)
      return new Set(names).size === names.length
    }, 'each header once'),
  ),
)
/** RFC 7617 section 2. */
const name = v.pipe(v.string(), v.regex(/^[^:\p{Cc}]{1,256}$/u, 'a name without a colon'))
const hash = v.pipe(
  v.string('a hash'),
  v.startsWith('$', 'no hash of a password: a password as it is goes into { "password": ... }'),
  v.check((text) => readPasswordHash(text) !== undefined, 'no hash that is known here: $scrypt$ln=15,r=8,p=1$…'),
)
const asked = v.strictObject({
  password: v.pipe(v.string('a text'), v.regex(/^\P{Cc}{1,1000}$/u, 'a text of one line, which is not empty')),
})
/** Nobody at all is no list: whoever takes the last name away means all, or none. */
const users = <T>(proof: v.GenericSchema<unknown, T>) =>
  v.optional(
    v.pipe(
      v.record(name, proof),
      v.check((all) => Object.keys(all).length > 0, 'without a name in it: null is for all'),
      v.check((all) => Object.keys(all).length <= MOST_NAMES, `at most ${MOST_NAMES} names`),
    ),
  )

const rest = {
  requestHeaders: headers,
  responseHeaders: headers,
  hostHeader: v.optional(
    v.pipe(
      v.string('a host'),
      v.regex(/^(?:[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::\d{1,5})?$/i, 'a host, host:port, or rewrite'),
    ),
  ),
  maintenance: v.optional(
    v.union(
      [v.boolean(), v.pipe(v.string(), v.maxLength(LONGEST_PAGE, `a page of at most ${LONGEST_PAGE} characters`))],
      'true, or a page',
    ),
  ),
  inspect: v.optional(v.boolean('true or false')),
}

/** The shape of `HttpSettings`. */
export const HTTP_SETTINGS: v.GenericSchema<unknown, HttpSettings> = v.strictObject({ basicAuth: users(hash), ...rest })

/** Whoever copies what they were shown has lost the value. */
const askedHeaders = v.optional(
  v.pipe(
    headers.wrapped,
    v.check((all) => !Object.entries(all).some(([name, value]) => isHiddenHeader(name, value)), NO_VALUE),
  ),
)

/** The shape of an `HttpRequest`. */
export const HTTP_REQUEST: v.GenericSchema<unknown, HttpRequest> = v.strictObject({
  basicAuth: users(v.union([hash, asked], 'a hash, or { "password": ... }')),
  ...rest,
  requestHeaders: askedHeaders,
  responseHeaders: askedHeaders,
})
