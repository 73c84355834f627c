import { ProxyError } from '../core/index.ts'
import type { Verdict } from './sniff.ts'

/** What a TLS client says first that a server chooses by. */
export interface ClientHello {
  /** SNI (RFC 6066 section 3), in lower case; undefined also where it is no host name. */
  readonly serverName?: string | undefined
  /** What it speaks inside (RFC 7301), the best first; empty if it does not say. */
  readonly alpn: readonly string[]
}

const HANDSHAKE_RECORD = 22
const CLIENT_HELLO = 1
const SERVER_NAME = 0
const HOST_NAME = 0
const ALPN = 16
/** The message with its header. */
const LONGEST_HELLO = 16_384
/** With the headers of the records that it comes in; so they cannot all hold one byte. */
const LONGEST_WHOLE = 2 * LONGEST_HELLO
const LONGEST_RECORD = 16_384
const NAME = /^(?=.{1,253}$)[a-z0-9_-]+(\.[a-z0-9_-]+)*$/

/**
 * Reads a ClientHello (RFC 8446 section 4.1.2, and the same in older versions), from as many records as it came in.
 *
 * @throws ProxyError PROXY_ERR_TLS
 */
export function readClientHello(bytes: Buffer): Verdict<ClientHello> {
  const fragments: Buffer[] = []
  let have = 0
  let wanted = 4
  for (let at = 0; have < wanted; ) {
    if (bytes.length < at + 5) return { need: at + 5 }
    const length = bytes.readUInt16BE(at + 3)
    const rightType = bytes[at] === HANDSHAKE_RECORD && bytes[at + 1] === 3
    if (!rightType || length === 0 || length > LONGEST_RECORD) throw bad('a record that holds none')
    const end = at + 5 + length
    if (end > LONGEST_WHOLE) throw bad('it is too long')
    const fragment = bytes.subarray(at + 5, end)
    fragments.push(fragment)
    // The header of the message may come in pieces as well, and says early enough if the rest is too much.
    if (wanted === 4 && have + fragment.length >= 4) wanted = lengthOf(Buffer.concat(fragments))
    if (bytes.length < end) return { need: end }
    have += length
    at = end
  }
  return { found: parse(new Fields(Buffer.concat(fragments).subarray(4, wanted))) }
}

function lengthOf(message: Buffer): number {
  if (message[0] !== CLIENT_HELLO) throw bad('another message came first')
  const length = 4 + message.readUIntBE(1, 3)
  if (length > LONGEST_HELLO) throw bad(`it is ${length} bytes long`)
  return length
}

function parse(hello: Fields): ClientHello {
  hello.bytes(2 + 32) // version and random
  hello.vector(1) // session
  hello.vector(2) // cipher suites
  hello.vector(1) // compression
  let serverName: string | undefined
  let alpn: readonly string[] = []
  const seen = new Set<number>()
  // Before TLS 1.3 there may be no extensions at all.
  const extensions = hello.empty ? hello : hello.vector(2)
  while (!extensions.empty) {
    const type = extensions.number(2)
    const body = extensions.vector(2)
    if (seen.has(type)) throw bad('it says something twice')
    seen.add(type)
    if (type === SERVER_NAME) serverName = readServerName(body)
    else if (type === ALPN) alpn = readAlpn(body)
  }
  if (!hello.empty) throw bad('there is something behind its end')
  return { serverName, alpn }
}

function readServerName(body: Fields): string | undefined {
  const names = body.vector(2)
  while (!names.empty) {
    const type = names.number(1)
    const name = names.vector(2).text().toLowerCase()
    if (type === HOST_NAME) return NAME.test(name) ? name : undefined
  }
  return undefined
}

function readAlpn(body: Fields): string[] {
  const list = body.vector(2)
  const names: string[] = []
  while (!list.empty) names.push(list.vector(1).text())
  return names
}

/** Reads one field after the other, none beyond the end. */
class Fields {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get empty(): boolean {
    return this.#at === this.#bytes.length
  }

  bytes(length: number): Buffer {
    const start = this.#at
    if (start + length > this.#bytes.length) throw bad('it ends too early')
    this.#at += length
    return this.#bytes.subarray(start, this.#at)
  }

  number(width: number): number {
    return this.bytes(width).readUIntBE(0, width)
  }

  /** A vector whose length stands before it, in `width` bytes. */
  vector(width: number): Fields {
    return new Fields(this.bytes(this.number(width)))
  }

  text(): string {
    return this.#bytes.toString('latin1')
  }
}

function bad(why: string): ProxyError {
  return new ProxyError('PROXY_ERR_TLS', `a bad ClientHello: ${why}`)
}
