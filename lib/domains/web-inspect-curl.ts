import { randomBytes } from 'node:crypto'
import { SAID_ANEW } from './header-names.ts'
import { type ShownBody, showBody } from './web-inspect-body.ts'
import { type Mask, maskHeader } from './web-inspect-mask.ts'
import { urlOf } from './web-inspect-show.ts'
import type { Recording } from './web-recording.ts'

/** A command for a POSIX shell that asks the same. */
export interface CurlCommand {
  readonly command: string
  /** Variables that stand in the place of secrets, without the `$`. */
  readonly placeholders: readonly string[]
  /** What is not the same, a line each. */
  readonly notes: readonly string[]
}

/** What curl says unless it is told otherwise. */
const SAID_BY_ITSELF = ['User-Agent', 'Accept']
/**
 * In front of each variable. Visitors choose names: without it one could ask with a header `AWS_SECRET_ACCESS_KEY`, and
 * whoever runs the command would send the visitor's host their own.
 */
const PREFIX = 'MASKED_'

/** The command, in which nothing but the names of variables is left to the shell. */
export async function curlOf(recording: Recording): Promise<CurlCommand> {
  const { method, url, headers, asked, hasBody, isHeadCut, isUpgraded } = recording
  const secrets = new Secrets()
  const { mask } = secrets
  const notes: string[] = []
  const body = await showBody(asked, headers, { mask })
  const content = body && contentOf(body, asked.bytes, secrets)
  const words = ['curl', ...methodOf(method, body !== undefined)]
  if (/[[\]{}]/.test(url)) words.push('--globoff')
  if (/\/\.(?:\/|$)/.test(url)) words.push('--path-as-is')
  words.push(secrets.quoted(percent(urlOf(recording, mask))))
  const names = new Set<string>()
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const [name = '', value = ''] = [headers[i], headers[i + 1]]
    const plain = name.toLowerCase()
    if (SAID_ANEW.has(plain) || plain.startsWith('x-forwarded-')) continue
    if (plain === 'content-encoding' && content?.isDecoded) {
      notes.push(`the body is sent without its coding (${body?.coding})`)
      continue
    }
    names.add(plain)
    // Without the semicolon curl takes an empty one for one that is not to be sent.
    const header = value === '' ? `${name};` : `${name}: ${maskHeader(name, value, mask)}`
    words.push('-H', secrets.quoted(header, 'latin1'))
  }
  for (const name of SAID_BY_ITSELF) if (!names.has(name.toLowerCase())) words.push('-H', `'${name}:'`)
  if (names.has('accept-encoding')) words.push('--compressed')
  if (content && !names.has('content-type')) words.push('-H', "'Content-Type:'")
  if (content) words.push(...content.words)
  if (isHeadCut) notes.push('the head was too long to be kept whole')
  if (hasBody && !asked.isWhole) notes.push(`the body was not kept whole (${asked.size} bytes of it came)`)
  if (isUpgraded) notes.push('it was a WebSocket: curl asks without the upgrade')
  return { command: `${content?.before ?? ''}${words.join(' ')}`, placeholders: [...secrets.names].sort(), notes }
}

interface Content {
  readonly words: readonly string[]
  /** What stands before curl, to give it what is no text. */
  readonly before: string
  readonly isDecoded: boolean
}

function contentOf(body: ShownBody, bytes: Buffer, secrets: Secrets): Content {
  const shown = Buffer.from(body.text, body.encoding)
  const isMasked = secrets.isIn(shown.toString('latin1'))
  // Where nothing has to be masked it is sent as it came. What was not looked at may hold secrets.
  const isOriginal = !isMasked && !(body.truncated && body.coding !== undefined)
  const sent = isOriginal ? bytes : shown
  const isDecoded = !isOriginal && body.coding !== undefined
  const text = sent.toString('utf8')
  if (isPlain(text) && Buffer.from(text, 'utf8').equals(sent)) {
    return { words: ['--data-raw', secrets.quoted(text)], before: '', isDecoded }
  }
  const pieces = secrets.split(sent.toString('latin1')).map((piece, i) => {
    if (i % 2 === 1) return `printf '%s' "$${piece}"`
    return `printf '%s' '${Buffer.from(piece, 'latin1').toString('base64')}' | base64 -d`
  })
  const made = pieces.length === 1 ? pieces.join('') : `{ ${pieces.join('; ')}; }`
  return { words: ['--data-binary', '@-'], before: `${made} | `, isDecoded }
}

/** Marks the places of secrets in a text by what nobody can have written there, and makes variables of them. */
class Secrets {
  readonly names = new Set<string>()
  readonly #mark = randomBytes(12).toString('hex')

  readonly mask: Mask = (name) => {
    const variable = variableOf(name)
    this.names.add(variable)
    return `${this.#mark}${variable}${this.#mark}`
  }

  isIn(text: string): boolean {
    return text.includes(this.#mark)
  }

  /** What lies between, and the names of variables, in turn. */
  split(text: string): string[] {
    return text.split(this.#mark)
  }

  /** One word for a shell. `latin1`: the text is the bytes that a header is, as the parser has it. */
  quoted(text: string, encoding: 'utf8' | 'latin1' = 'utf8'): string {
    const parts = this.split(text).map((part, i) => {
      if (i % 2 === 1) return `"$${part}"`
      return part === '' ? '' : shellQuoted(Buffer.from(part, encoding))
    })
    return parts.join('') || "''"
  }
}

/** In single quotes; what a terminal or an eye could take for something else is made by printf. */
export function shellQuoted(bytes: Buffer): string {
  const text = bytes.toString('utf8')
  if (isPlain(text) && Buffer.from(text, 'utf8').equals(bytes)) return `'${text.replaceAll("'", "'\\''")}'`
  const escaped = [...bytes].map((byte) => {
    const isSafe = byte >= 0x20 && byte < 0x7f && !"%'\\".includes(String.fromCharCode(byte))
    return isSafe ? String.fromCharCode(byte) : `\\${byte.toString(8).padStart(3, '0')}`
  })
  return `"$(printf '${escaped.join('')}')"`
}

function methodOf(method: string, hasBody: boolean): string[] {
  if (method === 'HEAD' && !hasBody) return ['--head']
  return method === (hasBody ? 'POST' : 'GET') ? [] : ['-X', `'${method}'`]
}

/** `Authorization` becomes `MASKED_AUTHORIZATION`, `user[password]` becomes `MASKED_USER_PASSWORD`. */
function variableOf(name: string): string {
  const words = name
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .toUpperCase()
    .replace(/[^A-Z0-9]+/g, '_')
    .replace(/^_+|_+$/g, '')
    .slice(0, 40)
  return `${PREFIX}${words || 'SECRET'}`
}

/** Text that is what it looks like, in lines. */
function isPlain(text: string): boolean {
  return !/(?!\n)[\p{C}\p{Zl}\p{Zp}]/u.test(text)
}

/** A URL is ASCII. */
function percent(url: string): string {
  return url.replace(/[\x80-\xff]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
}
