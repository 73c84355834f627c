import { hkdfSync, type KeyObject, randomBytes } from 'node:crypto'
import { ProxyError } from './errors.ts'
import { LIMITS, type Limits } from './limits.ts'
import type { Link } from './link.ts'
import { LinkReader } from './link-reader.ts'
import { NoiseHandshake, type Suite } from './noise.ts'
import { RecordKeys } from './record.ts'
import type { LinkParts } from './record-link.ts'

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
 * A session of zeros asks for a new one. `resumed` is 0 where the acceptor has made a new one, whatever was asked for.
 * Bytes behind the named ones are left for later versions.
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

/** Which end of the main connection this is. Who listens for users is independent of it. */
export type Role = 'dialler' | 'acceptor'

/** What an end tells the other one about itself. */
export type PeerLimits = Pick<Limits, 'subConnections' | 'pendingOpens'>

/** The session that a dialler wants to go on with. */
export interface ResumeRequest {
  readonly session: Buffer
  /** Grows with each attempt. */
  readonly epoch: number
  /** What the first handshake of the session gave; it salts the keys of all later links. */
  readonly secret: Buffer
}

/** What a finished handshake hands over. */
export interface Established extends LinkParts {
  readonly role: Role
  /** What both sides of the handshake have seen; 32 bytes. */
  readonly hash: Buffer
  readonly session: Buffer
  readonly epoch: number
  /** Whether this link goes on with an older session. */
  readonly resumed: boolean
  /** Undefined where there is no resuming. */
  readonly resumeSecret: Buffer | undefined
  readonly credential: string
  readonly limits: PeerLimits
}

export interface AcceptorKeys {
  readonly staticKey: KeyObject
  readonly limits: PeerLimits
  pskFor(name: string, suite: Suite): Promise<Uint8Array>
  /** The session of this credential, if it can be resumed. Whatever is answered, nothing changes yet. */
  find(session: Buffer, credential: string): { readonly epoch: number; readonly secret: Buffer } | undefined
}

const malformed = (what: string): ProxyError => new ProxyError('PROXY_ERR_HANDSHAKE', what)

function encodeLimits({ subConnections, pendingOpens }: PeerLimits): Buffer {
  const bytes = Buffer.alloc(12)
  bytes.writeUInt32BE(subConnections, 4)
  bytes.writeUInt32BE(pendingOpens, 8)
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

type SplitKeys = readonly [toAcceptor: Buffer, toDialler: Buffer]

/** What both ends keep for as long as the session lives, and nobody else can know. */
function resumeSecretOf(split: SplitKeys, hash: Buffer): Buffer {
  return Buffer.from(hkdfSync('sha256', Buffer.concat(split), hash, 'symport resume', 32))
}

/** Overwrites the split keys. */
function recordKeys(
  role: Role,
  [toAcceptor, toDialler]: SplitKeys,
  salt?: Buffer,
): { send: RecordKeys; receive: RecordKeys } {
  const [mine, theirs] = role === 'dialler' ? [toAcceptor, toDialler] : [toDialler, toAcceptor]
  const keys = { send: new RecordKeys(mine, salt), receive: new RecordKeys(theirs, salt) }
  toAcceptor.fill(0)
  toDialler.fill(0)
  return keys
}

/** `resume`: the session to go on with, if the acceptor still knows it. */
export async function dialHandshake(
  link: Link,
  reader: LinkReader,
  credential: Credential,
  limits: PeerLimits = LIMITS,
  resume?: ResumeRequest,
): Promise<Established> {
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
  epoch.writeUInt32BE(resume?.epoch ?? 0)
  const payload1 = Buffer.concat([resume?.session ?? NEW_SESSION, epoch, encodeLimits(limits)])
  link.write([preamble, ...withLength(noise.write(payload1))])
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
  const resumed = payload[16] === 1
  if (resumed && !(resume && session.equals(resume.session))) throw malformed('a session that nobody asked for')
  return {
    role: 'dialler',
    link,
    reader,
    ...finish('dialler', noise, resumed ? resume : undefined),
    session,
    credential: credential.name,
    limits: decodeLimits(payload.subarray(17)),
  }
}

/** What follows from a handshake whose messages have all been read and written. */
function finish(
  role: Role,
  noise: NoiseHandshake,
  resume: { readonly epoch: number; readonly secret: Buffer } | undefined,
): Pick<Established, 'send' | 'receive' | 'hash' | 'epoch' | 'resumed' | 'resumeSecret'> {
  const split = noise.split()
  const { hash } = noise
  const resumeSecret = resume?.secret ?? resumeSecretOf(split, hash)
  const keys = recordKeys(role, split, resume?.secret)
  return { ...keys, hash, epoch: resume?.epoch ?? 0, resumed: resume !== undefined, resumeSecret }
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
    psk: await reader.unlessLost(keys.pskFor(name, suite)),
    static: keys.staticKey,
  })
  const payload = noise.read(await readMessage(reader))
  if (payload.length < PAYLOAD_1) throw malformed('a handshake payload that is too short')
  const limits = decodeLimits(payload.subarray(20))
  const epoch = payload.readUInt32BE(16)
  const asked = payload.subarray(0, 16)
  const known = asked.equals(NEW_SESSION) ? undefined : keys.find(Buffer.from(asked), name)
  if (known && epoch <= known.epoch) {
    throw new ProxyError('PROXY_ERR_STALE_EPOCH', 'an attempt to resume that is older than the last one')
  }
  const session = known ? Buffer.from(asked) : randomBytes(16)
  const answer = noise.write(Buffer.concat([session, Buffer.from([known ? 1 : 0]), encodeLimits(keys.limits)]))
  link.write([Buffer.from([ACCEPTED]), ...withLength(answer)])
  return {
    role: 'acceptor',
    link,
    reader,
    ...finish('acceptor', noise, known && { epoch, secret: known.secret }),
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
  const hash = derive('symport hash')
  const session = NEW_SESSION
  return {
    role,
    link,
    reader,
    ...keys,
    hash,
    session,
    epoch: 0,
    resumed: false,
    resumeSecret: undefined,
    credential: '',
    limits: LIMITS,
  }
}

/** Runs a handshake under its deadline and `signal`. If anything goes wrong, `fail` closes the link. */
export async function withDeadline<T>(
  link: Link,
  options: { signal?: AbortSignal | undefined; timeout?: number | undefined },
  handshake: (reader: LinkReader) => Promise<T>,
  fail: (link: Link, reader: LinkReader, error: ProxyError) => void = () => link.destroy(),
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
  } catch (cause) {
    const error = ProxyError.from(cause, 'PROXY_ERR_HANDSHAKE')
    fail(link, reader, error)
    throw error
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}
