import { hkdfSync, type KeyObject, randomBytes } from 'node:crypto'
import { ProxyError } from './errors.ts'
import type { Link } from './link.ts'
import { LinkReader } from './link-reader.ts'
import type { Established, PeerLimits, Role } from './main-connection.ts'
import { MAX_PENDING_OPENS, MAX_SUB_CONNECTIONS } from './multiplexer.ts'
import { NoiseHandshake, type Suite } from './noise.ts'
import { RecordKeys } from './record.ts'

/**
 * The dialler sends a preamble, which is also the prologue of the Noise handshake, and message 1:
 *
 *     magic (4) | version (u8) | suite (u8) | n (u8) | credential name (n) | u16 length | message 1
 *
 * The acceptor answers `00` (refused) and closes, whatever the reason, or
 *
 *     01 | u16 length | message 2
 *
 * Payload 1: session (16) | epoch (u32) | features (u32) | sub-connections (u32) | pending opens (u32)
 * Payload 2: session (16) | resumed (u8) | features (u32) | sub-connections (u32) | pending opens (u32)
 *
 * A session of zeros asks for a new one. Bytes behind the named ones are left for later versions.
 */
const MAGIC = Buffer.from([0xf5, 0x53, 0x59, 0x4d])
const VERSION = 1
const SUITES: readonly Suite[] = ['NNpsk0', 'NKpsk0']
const REFUSED = 0
const ACCEPTED = 1
const MAX_NAME = 64
const MAX_MESSAGE = 1024
const NEW_SESSION = Buffer.alloc(16)
const PAYLOAD_1 = 32
const PAYLOAD_2 = 29

/** How a handshake may take at most, in ms. */
export const HANDSHAKE_TIMEOUT = 10_000

/** What a dialler proves, and to whom. */
export interface Credential {
  /** Empty for a server's own shared secret. */
  readonly name: string
  readonly suite: Suite
  /** 32 bytes, see `derivePsk`. */
  readonly psk: Uint8Array
  /** The acceptor's static X25519 key, for NKpsk0. */
  readonly serverKey?: KeyObject | undefined
}

export interface AcceptorKeys {
  readonly staticKey: KeyObject
  pskFor(name: string, suite: Suite): Promise<Uint8Array>
}

const malformed = (what: string): ProxyError => new ProxyError('PROXY_ERR_HANDSHAKE', what)

function encodeLimits(): Buffer {
  const bytes = Buffer.alloc(12)
  bytes.writeUInt32BE(MAX_SUB_CONNECTIONS, 4)
  bytes.writeUInt32BE(MAX_PENDING_OPENS, 8)
  return bytes
}

function decodeLimits(bytes: Buffer): PeerLimits {
  const limits = { subConnections: bytes.readUInt32BE(4), pendingOpens: bytes.readUInt32BE(8) }
  if (limits.subConnections === 0 || limits.pendingOpens === 0) throw malformed('a peer that allows nothing')
  return limits
}

function withLength(message: Buffer): Buffer[] {
  const length = Buffer.allocUnsafe(2)
  length.writeUInt16BE(message.length)
  return [length, message]
}

async function readMessage(reader: LinkReader): Promise<Buffer> {
  const length = (await reader.read(2)).readUInt16BE(0)
  if (length > MAX_MESSAGE) throw malformed(`a handshake message of ${length} bytes`)
  return await reader.read(length)
}

function recordKeys(role: Role, [toAcceptor, toDialler]: [Buffer, Buffer]): { send: RecordKeys; receive: RecordKeys } {
  const [mine, theirs] = role === 'dialler' ? [toAcceptor, toDialler] : [toDialler, toAcceptor]
  const keys = { send: new RecordKeys('seal', mine), receive: new RecordKeys('open', theirs) }
  toAcceptor.fill(0)
  toDialler.fill(0)
  return keys
}

export async function dialHandshake(link: Link, reader: LinkReader, credential: Credential): Promise<Established> {
  const name = Buffer.from(credential.name, 'utf8')
  if (name.length > MAX_NAME) throw malformed(`a credential name has at most ${MAX_NAME} bytes`)
  const head = Buffer.from([VERSION, SUITES.indexOf(credential.suite) + 1, name.length])
  const preamble = Buffer.concat([MAGIC, head, name])
  const noise = new NoiseHandshake({
    suite: credential.suite,
    initiator: true,
    prologue: preamble,
    psk: credential.psk,
    static: credential.serverKey,
  })
  const epoch = Buffer.alloc(4)
  link.write([preamble, ...withLength(noise.write(Buffer.concat([NEW_SESSION, epoch, encodeLimits()])))])
  const status = (await reader.read(1))[0]
  if (status === REFUSED) {
    throw new ProxyError('PROXY_ERR_REFUSED', 'the server refused: a wrong secret, or an id it does not know', {
      retryable: true,
    })
  }
  if (status !== ACCEPTED) throw malformed('what answers there is not a symport server')
  const payload = noise.read(await readMessage(reader))
  if (payload.length < PAYLOAD_2) throw malformed('a handshake payload that is too short')
  const session = Buffer.from(payload.subarray(0, 16))
  const limits = decodeLimits(payload.subarray(17))
  const keys = recordKeys('dialler', noise.split())
  return { role: 'dialler', link, reader, ...keys, hash: noise.hash, session, credential: credential.name, limits }
}

export async function acceptHandshake(link: Link, reader: LinkReader, keys: AcceptorKeys): Promise<Established> {
  const head = await reader.read(7)
  const suite = SUITES[(head[5] ?? 0) - 1]
  const length = head[6] ?? 0
  if (!head.subarray(0, 4).equals(MAGIC)) throw malformed('what came in does not speak symport')
  if (head[4] !== VERSION) throw malformed(`protocol version ${head[4]} is not known here`)
  if (!suite) throw malformed(`suite ${head[5]} is not known here`)
  if (length > MAX_NAME) throw malformed(`a credential name of ${length} bytes`)
  const nameBytes = length > 0 ? await reader.read(length) : Buffer.alloc(0)
  const name = nameBytes.toString('utf8')
  const noise = new NoiseHandshake({
    suite,
    initiator: false,
    prologue: Buffer.concat([head, nameBytes]),
    psk: await keys.pskFor(name, suite),
    static: keys.staticKey,
  })
  const payload = noise.read(await readMessage(reader))
  if (payload.length < PAYLOAD_1) throw malformed('a handshake payload that is too short')
  const limits = decodeLimits(payload.subarray(20))
  const session = randomBytes(16)
  const answer = noise.write(Buffer.concat([session, Buffer.from([0]), encodeLimits()]))
  link.write([Buffer.from([ACCEPTED]), ...withLength(answer)])
  return {
    role: 'acceptor',
    link,
    reader,
    ...recordKeys('acceptor', noise.split()),
    hash: noise.hash,
    session,
    credential: name,
    limits,
  }
}

/** One and the same answer to every handshake that fails. The link has a second to carry it. */
export function refuse(link: Link, reader: LinkReader): void {
  const timer = setTimeout(() => link.destroy(), 1000)
  reader.onGone(() => clearTimeout(timer))
  link.write([Buffer.from([REFUSED])])
  link.end()
}

/** Both ends hold `key` already; fresh random from both makes sure that no nonce is ever used twice under one key. */
export async function keyHandshake(link: Link, reader: LinkReader, key: Uint8Array, role: Role): Promise<Established> {
  if (key.length !== 16) throw new RangeError('the key of a main connection has 16 bytes')
  const mine = randomBytes(32)
  link.write([mine])
  const theirs = await reader.read(32)
  const salt = role === 'dialler' ? Buffer.concat([mine, theirs]) : Buffer.concat([theirs, mine])
  const derive = (info: string): Buffer => Buffer.from(hkdfSync('sha256', key, salt, info, 32))
  const keys = recordKeys(role, [derive('symport to acceptor'), derive('symport to dialler')])
  const limits = { subConnections: MAX_SUB_CONNECTIONS, pendingOpens: MAX_PENDING_OPENS }
  return { role, link, reader, ...keys, hash: derive('symport hash'), session: NEW_SESSION, credential: '', limits }
}

/** Runs a handshake under its deadline and `signal`. If anything goes wrong, `fail` closes the link. */
export async function withDeadline<T>(
  link: Link,
  options: { signal?: AbortSignal | undefined; timeout?: number | undefined },
  handshake: (reader: LinkReader) => Promise<T>,
  fail: (link: Link, reader: LinkReader) => void = () => link.destroy(),
): Promise<T> {
  const reader = new LinkReader(link)
  const { signal, timeout = HANDSHAKE_TIMEOUT } = options
  const timer = setTimeout(() => {
    reader.fail(
      new ProxyError('PROXY_ERR_HANDSHAKE_TIMEOUT', 'no answer to the handshake in time', { retryable: true }),
    )
  }, timeout)
  const abort = (): void => reader.fail(new ProxyError('PROXY_ERR_ABORTED', 'the handshake was given up'))
  signal?.addEventListener('abort', abort)
  if (signal?.aborted) abort()
  try {
    return await handshake(reader)
  } catch (error) {
    fail(link, reader)
    throw ProxyError.from(error, 'PROXY_ERR_HANDSHAKE')
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}
