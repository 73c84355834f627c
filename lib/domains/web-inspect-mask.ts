import { isSecretHeader, isSecretName } from './secret-names.ts'

/** What stands in the place of a secret, whose name is given. */
export type Mask = (name: string) => string

const MASK = '***'

const plain: Mask = () => MASK

/** A signature in a URL is all that is needed to use it; of a message it proves who sent it, and no more. */
const SECRET_IN_URL: ReadonlySet<string> = new Set(['signature', 'sig', 'code'])
/** Where somebody logs in, it is a code of OAuth, or one that was sent to a telephone. */
const SECRET_IN_FORM: ReadonlySet<string> = new Set(['code'])
/** In JSON most codes are none of these: there something else has to say so too. */
const OAUTH = /"(?:grant_?type|code_?verifier|redirect_?uri|client_?id)"\s*:/i
const URL_HEADERS: ReadonlySet<string> = new Set(['referer', 'location', 'content-location'])
/** What may be the name of a secret that follows, and what no name of a protocol looks like. */
const LABEL = /^[a-z_-]{1,24}$/i
const RANDOM = /[a-z0-9]{20}|.{49}/i

/** Names and values as they are sent, less the secrets. */
export function maskHeaders(list: readonly string[], mask: Mask = plain): string[] {
  return list.map((text, i) => (i % 2 === 0 ? text : maskHeader(list[i - 1] ?? '', text, mask)))
}

/** `Bearer ***`, `sid=***; theme=***`, `sid=***; Path=/`. */
export function maskHeader(name: string, value: string, mask: Mask = plain): string {
  const plainName = name.toLowerCase()
  if (URL_HEADERS.has(plainName)) return maskUrl(value, mask)
  if (plainName === 'cookie') return maskPairs(value, /;/, mask)
  if (plainName === 'set-cookie') {
    const [, pair = '', attributes = ''] = /^([^;]*)(.*)$/s.exec(value) ?? []
    return `${maskPairs(pair, /;/, mask)}${attributes}`
  }
  if (plainName === 'sec-websocket-protocol') return maskProtocols(value, () => mask(name))
  if (!isSecretHeader(plainName)) return maskUrlsIn(value, mask)
  const [, scheme] = (plainName.endsWith('authorization') && /^([a-z][a-z0-9-]{0,30}) +\S/i.exec(value)) || []
  return scheme === undefined ? mask(name) : `${scheme} ${mask(name)}`
}

/** The secrets of a query, and of who is in front of the host. What is in the path stays. */
export function maskUrl(url: string, mask: Mask = plain): string {
  const [, place = '', query, fragment = ''] = /^([^?#]*)(?:\?([^#]*))?(.*)$/s.exec(url) ?? []
  const safe = place.replace(/^([a-z][a-z0-9+.-]*:)?\/\/[^/@]*@/i, (_, scheme = '') => `${scheme}//${mask('user')}@`)
  const shown = query === undefined ? '' : `?${maskForm(query, mask, SECRET_IN_URL)}`
  return `${safe}${shown}${fragment === '' ? '' : `#${maskForm(fragment.slice(1), mask, SECRET_IN_URL)}`}`
}

/** In text: `<https://x.test/?token=***>; rel=next`, `5; url=/?token=***`. */
function maskUrlsIn(text: string, mask: Mask): string {
  if (!/[?#]|:\/\//.test(text)) return text
  if (/^(?:[a-z][a-z0-9+.-]{0,30}:)?\//i.test(text)) return maskUrl(text, mask)
  return text.replace(/[^\s<>"]+/g, (word) =>
    maskUrl(
      word.replace(/:\/\/[^/@]*@/g, () => `://${mask('user')}@`),
      mask,
    ),
  )
}

/** Browsers can send a WebSocket's token nowhere else: `bearer, ***`. */
function maskProtocols(text: string, mask: () => string): string {
  let before = ''
  return text
    .split(',')
    .map((entry) => {
      const protocol = entry.trim()
      const isLabelled = LABEL.test(before) && (isSecretName(before) || /^(?:bearer|basic)$/i.test(before))
      const isSecret = isLabelled || RANDOM.test(protocol) || (isSecretName(protocol) && !LABEL.test(protocol))
      before = protocol
      return isSecret && protocol !== '' ? `${entry.startsWith(' ') ? ' ' : ''}${mask()}` : entry
    })
    .join(',')
}

/** `a=1&password=***`, of a form or a query. */
export function maskForm(text: string, mask: Mask = plain, more: ReadonlySet<string> = SECRET_IN_FORM): string {
  return text.replace(/[^&;]+/g, (pair) => {
    const at = pair.indexOf('=')
    if (at < 0 || at === pair.length - 1) return pair
    const name = decoded(pair.slice(0, at))
    const isSecret = isSecretIn(name, more) || isUrlWithSecret(decoded(pair.slice(at + 1)))
    return isSecret ? `${pair.slice(0, at)}=${mask(name)}` : pair
  })
}

function isSecretIn(name: string, more: ReadonlySet<string>): boolean {
  return isSecretName(name) || more.has(name.toLowerCase().replace(/^x-[a-z]+-/, ''))
}

/** `/cb?token=1`, as it stands behind `next=`. */
function isUrlWithSecret(text: string): boolean {
  for (const [, name = ''] of text.matchAll(/[?&#;]([^\s=?&#;]+)=/g)) if (isSecretIn(name, SECRET_IN_URL)) return true
  return false
}

/** JSON with its form kept, also where it ends in the middle. All that lies below a secret name is one. */
export function maskJson(text: string, mask: Mask = plain): string {
  return new JsonMask(mask).read(text)
}

/** The parts of `multipart/form-data` (RFC 7578), as the characters of its bytes. */
function maskMultipart(text: string, boundary: string, mask: Mask = plain): string {
  const parts = text.split(`--${boundary}`)
  return parts
    .map((part) => {
      const [, head = '', body = ''] = /^(\r\n.*?\r\n\r\n)(.*)$/s.exec(part) ?? []
      const name = /^content-disposition:[^\r\n]*[;\s]name="?([^"\r\n;]*)/im.exec(head)?.[1]
      if (name === undefined || !isSecretIn(name, SECRET_IN_FORM)) return part
      return `${head}${mask(name)}${body.endsWith('\r\n') ? '\r\n' : ''}`
    })
    .join(`--${boundary}`)
}

/** A body with the fields masked that a type of its kind has. Text of other kinds stays as it is. */
export function maskBody(text: string, type: string, mask: Mask = plain): string {
  const kind = type.replace(/;.*$/s, '').trim().toLowerCase()
  if (kind === 'application/x-www-form-urlencoded') return maskForm(text, mask)
  const boundary = /;\s*boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))/i.exec(type)
  if (kind.startsWith('multipart/') && boundary) return maskMultipart(text, boundary[1] ?? boundary[2] ?? '', mask)
  // Many send one of these and call it something else.
  if (/[/+]json$/.test(kind) || /^\s*[[{]/.test(text)) return maskJson(text, mask)
  return (kind === '' || kind === 'text/plain') && /^[^\s=&]{1,200}=/.test(text) ? maskForm(text, mask) : text
}

function maskPairs(text: string, between: RegExp, mask: Mask): string {
  return text
    .split(between)
    .map((pair) => {
      const [, space = '', name = '', value] = /^(\s*)([^=]*)(?:=(.*))?$/s.exec(pair) ?? []
      if (value === undefined) return name === '' ? pair : `${space}${mask('cookie')}`
      return `${space}${name}=${mask(name)}`
    })
    .join(';')
}

/** Byte by byte: it may end in the middle of a character. */
function decoded(text: string): string {
  return text
    .replaceAll('+', ' ')
    .replace(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)))
}

/** Reads tokens, and knows of each value under which name it lies. */
class JsonMask {
  readonly #mask: Mask
  /** Of each list or object that is open: whether it is an object, and the secret name above it. */
  readonly #open: { readonly isObject: boolean; readonly secret: string | undefined }[] = []
  #isKey = false
  #key: string | undefined
  #isOauth = false

  constructor(mask: Mask) {
    this.#mask = mask
  }

  read(text: string): string {
    this.#isOauth = OAUTH.test(text) || (isFlat(text) && /"state"\s*:/.test(text))
    return text.replace(/"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?$)|[[\]{}:,]|[^\s[\]{}:,"]+/gs, (token) => this.#token(token))
  }

  #token(token: string): string {
    const here = this.#open.at(-1)
    switch (token) {
      case '{':
      case '[':
        this.#open.push({ isObject: token === '{', secret: this.#secret })
        this.#isKey = token === '{'
        this.#key = undefined
        return token
      case '}':
      case ']':
        this.#open.pop()
        this.#isKey = false
        this.#key = undefined
        return token
      case ',':
        this.#isKey = here?.isObject ?? false
        this.#key = undefined
        return token
      case ':':
        this.#isKey = false
        return token
    }
    if (this.#isKey) {
      this.#key = token.startsWith('"') ? unquoted(token) : token
      return token
    }
    const secret =
      this.#secret ?? (this.#isOauth && this.#key === 'code' && token.startsWith('"') ? this.#key : undefined)
    return secret === undefined || token === 'null' ? token : `"${this.#mask(secret)}"`
  }

  get #secret(): string | undefined {
    return this.#key !== undefined && isSecretName(this.#key) ? this.#key : this.#open.at(-1)?.secret
  }
}

function isFlat(json: string): boolean {
  return json.indexOf('{') === json.lastIndexOf('{') && !json.includes('[')
}

function unquoted(token: string): string {
  try {
    return String(JSON.parse(token))
  } catch {
    return token.slice(1)
  }
}
