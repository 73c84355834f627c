/** What a message of HTTP/1.1 begins with. */
export interface MessageHead {
  /** The first line, without its end, whatever it is made of. */
  readonly first: string
  /** Of a field that is there several times, the values with commas between them (RFC 9110 section 5.3). */
  header(name: string): string | undefined
}

/** How long the body behind a head is: bytes, chunks, all until the end, or no HTTP any more. */
export type BodyLength = number | 'chunked' | 'end' | 'other'

/** Bytes of a line between two chunks. */
const LONGEST_LINE = 4096
const LF = 10
const CR = 13

type State = 'head' | 'body' | 'chunk-size' | 'chunk' | 'chunk-end' | 'trailers' | 'lost'

/**
 * Reads where the messages of one direction of a connection begin, out of bytes that go past (RFC 9112). It holds a head
 * at most, changes nothing, and gives up for good where what it sees is no HTTP.
 */
export class MessageReader {
  readonly #longest: number
  readonly #onHead: (head: MessageHead) => BodyLength
  #state: State = 'head'
  /** What has come of a head or a line. */
  #held: Buffer<ArrayBufferLike> = Buffer.alloc(0)
  #length = 0
  /** Bytes of the body, or of the chunk, that are still to come. */
  #left = 0

  /** `longest`: bytes of a head. `onHead` is told of each message, and says how long its body is. */
  constructor(longest: number, onHead: (head: MessageHead) => BodyLength) {
    this.#longest = longest
    this.#onHead = onHead
  }

  /** Whether it could not follow any more. */
  get lost(): boolean {
    return this.#state === 'lost'
  }

  /** Whether a head has begun and not ended. */
  get inHead(): boolean {
    return this.#state === 'head' && this.#length > 0
  }

  /** Looks at no more. */
  stop(): void {
    this.#state = 'lost'
    this.#held = Buffer.alloc(0)
    this.#length = 0
  }

  /** The bytes are looked at in this call only. */
  read(bytes: Uint8Array): void {
    let at = 0
    while (at < bytes.length && this.#state !== 'lost') {
      if (this.#state === 'body' || this.#state === 'chunk') {
        const past = Math.min(this.#left, bytes.length - at)
        at += past
        this.#left -= past
        if (this.#left === 0) this.#state = this.#state === 'body' ? 'head' : 'chunk-end'
      } else {
        at = this.#state === 'head' ? this.#readHead(bytes, at) : this.#readLine(bytes, at)
      }
    }
  }

  #readHead(bytes: Uint8Array, from: number): number {
    // Empty lines in front of a message are passed over (RFC 9112 section 2.2).
    if (this.#length === 0 && (bytes[from] === LF || bytes[from] === CR)) return from + 1
    const end = this.#takeUntil(bytes, from, this.#longest, endsHead)
    if (end === undefined) return bytes.length
    const length = this.#onHead(readHead(this.#taken()))
    if (this.#state === 'lost') return end
    if (length === 'other' || length === 'end') this.stop()
    else if (length === 'chunked') this.#state = 'chunk-size'
    else this.#expect(length, 'body', 'head')
    return end
  }

  #readLine(bytes: Uint8Array, from: number): number {
    const end = this.#takeUntil(bytes, from, this.#state === 'trailers' ? this.#longest : LONGEST_LINE, endsLine)
    if (end === undefined) return bytes.length
    const line = this.#taken().replace(/\r?\n$/, '')
    if (this.#state === 'trailers') {
      if (line === '') this.#state = 'head'
    } else if (this.#state === 'chunk-end') {
      if (line === '') this.#state = 'chunk-size'
      else this.stop()
    } else {
      const size = /^([0-9a-f]{1,12})\s*(?:;.*)?$/i.exec(line)?.[1]
      if (size === undefined) this.stop()
      else this.#expect(Number.parseInt(size, 16), 'chunk', 'trailers')
    }
    return end
  }

  #expect(length: number, then: State, otherwise: State): void {
    this.#left = length
    this.#state = length > 0 ? then : otherwise
  }

  /** Holds what comes until `ends` says that it is all; answers where the rest begins. Gives up beyond `most`. */
  #takeUntil(
    bytes: Uint8Array,
    from: number,
    most: number,
    ends: (held: Buffer, end: number) => boolean,
  ): number | undefined {
    for (let at = from; at < bytes.length; ) {
      const found = bytes.indexOf(LF, at)
      const end = found < 0 ? bytes.length : found + 1
      if (this.#length + end - at > most) {
        this.stop()
        return undefined
      }
      this.#hold(bytes.subarray(at, end))
      at = end
      if (found >= 0 && ends(this.#held, this.#length)) return at
    }
    return undefined
  }

  #hold(bytes: Uint8Array): void {
    const length = this.#length + bytes.length
    if (length > this.#held.length) {
      const larger = Buffer.alloc(Math.max(1024, Math.min(2 * length, this.#longest)))
      larger.set(this.#held.subarray(0, this.#length))
      this.#held = larger
    }
    this.#held.set(bytes, this.#length)
    this.#length = length
  }

  #taken(): string {
    const text = this.#held.toString('latin1', 0, this.#length)
    this.#length = 0
    if (this.#held.length > LONGEST_LINE) this.#held = Buffer.alloc(0)
    return text
  }
}

function endsHead(held: Buffer, end: number): boolean {
  const before = held[end - 2]
  return before === LF || (before === CR && held[end - 3] === LF)
}

function endsLine(): boolean {
  return true
}

function readHead(text: string): MessageHead {
  const [first = '', ...lines] = text.split(/\r?\n/)
  return {
    first,
    header(name) {
      const start = `${name}:`
      const values = lines.filter((line) => line.slice(0, start.length).toLowerCase() === start)
      return values.length === 0 ? undefined : values.map((line) => line.slice(start.length).trim()).join(', ')
    },
  }
}

/** How long the body of a request is, by its head (RFC 9112 section 6.3). */
export function requestLength(head: MessageHead): BodyLength {
  const coding = head.header('transfer-encoding')
  if (coding !== undefined) return /(?:^|,)\s*chunked$/i.test(coding) ? 'chunked' : 'other'
  return contentLength(head) ?? 0
}

/** The same of an answer, which depends on what was asked. */
export function answerLength(head: MessageHead, status: number, method: string): BodyLength {
  if (status === 101 || (method === 'CONNECT' && status < 300)) return 'other'
  if (method === 'HEAD' || status < 200 || status === 204 || status === 304) return 0
  const coding = head.header('transfer-encoding')
  if (coding !== undefined) return /(?:^|,)\s*chunked$/i.test(coding) ? 'chunked' : 'end'
  return contentLength(head) ?? 'end'
}

function contentLength(head: MessageHead): BodyLength | undefined {
  const length = head.header('content-length')
  if (length === undefined) return undefined
  return /^\d{1,15}$/.test(length) ? Number(length) : 'other'
}
