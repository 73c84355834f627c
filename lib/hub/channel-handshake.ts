import { createHmac, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto'
import { keyHandshake, withDeadline } from '../core/handshake.ts'
import { type Abortable, type Link, MainConnection, type MainOptions, ProxyError } from '../core/index.ts'
import type { LinkReader } from '../core/link-reader.ts'
import type { Hidden } from '../domains/hidden.ts'
import type { ChannelTries, Try } from './channel-tries.ts'
import { beginCpace, type CpaceInputs, intermediateKey, lengthsAndValues, POINT, type Share } from './cpace.ts'

/**
 * Two nodes that share the password of a channel agree on a key, over a server that relays and may do anything:
 *
 *     1  joiner to offerer   version (u8) | sid (16) | point of the joiner (32)
 *     2  offerer to joiner   version (u8) | point of the offerer (32)
 *     3  joiner to offerer   tag (32)
 *     4  offerer to joiner   tag (32)
 *
 * The points are CPace's, the joiner being the initiator. Its tag comes first: an offerer shows nothing by which a guess
 * could be checked before the guess was shown to it. What follows is a main connection under the key, without resuming
 * and without keepalive: what carries it has both.
 *
 * The sid is the joiner's alone. It has to be fresh to one end only: both scalars are, so that no key comes twice.
 */
export interface ChannelSecret {
  readonly name: string
  readonly password: Hidden
}

const VERSION = Buffer.from([1])
const SID = 16
const TAG = 32
const MESSAGE_1 = SID + POINT

interface Keys {
  readonly joinerTag: Buffer
  readonly offererTag: Buffer
  /** For the main connection. */
  readonly main: Buffer
}

export interface ChannelOptions extends Abortable, MainOptions, ChannelSecret {
  readonly tries: ChannelTries
  /** How long all of it may take, in ms. Default 10,000. */
  readonly timeout?: number | undefined
  /** The other end has said what a handshake begins with, or what it never does. */
  readonly onHeard?: (() => void) | undefined
}

/** @throws ProxyError */
export async function joinChannel(link: Link, options: ChannelOptions): Promise<MainConnection> {
  return await establish(link, options, 'dialler', joinerKey)
}

/** @throws ProxyError */
export async function answerChannel(link: Link, options: ChannelOptions): Promise<MainConnection> {
  return await establish(link, options, 'acceptor', offererKey)
}

/** A timer of Node.js takes no longer period than this makes of it: some weeks. */
const OFF = { idle: 2 ** 32 - 2, timeout: 2 ** 32 - 2 }

type Agree = (link: Link, reader: LinkReader, options: ChannelOptions) => Promise<Buffer>

async function establish(
  link: Link,
  options: ChannelOptions,
  role: 'dialler' | 'acceptor',
  agree: Agree,
): Promise<MainConnection> {
  const { limits, budget } = options
  const start = async (reader: LinkReader): Promise<MainConnection> => {
    const key = await agree(link, reader, options)
    try {
      const established = await keyHandshake(link, reader, key, role)
      return await MainConnection.start(established, { limits, budget, keepalive: OFF, resumeTimeout: 0 })
    } finally {
      key.fill(0)
    }
  }
  try {
    return await withDeadline(link, options, start, (_link, _reader, error) => link.destroy(error))
  } catch (error) {
    // Why the server has closed it, or the other node, tells a joiner more than that it is closed. Whoever offers would
    // be told of guesses that nobody has made.
    if (
      role === 'dialler' &&
      error instanceof ProxyError &&
      error.code === 'PROXY_ERR_LINK_LOST' &&
      error.cause instanceof ProxyError
    ) {
      throw error.cause
    }
    throw error
  }
}

async function joinerKey(link: Link, reader: LinkReader, options: ChannelOptions): Promise<Buffer> {
  return await trying(reader, options.tries, async (attempt) => {
    const inputs = inputsOf(options, randomBytes(SID))
    const side = await reader.unlessLost(beginCpace(inputs))
    link.write([Buffer.concat([VERSION, inputs.sid, side.point])])
    const theirs = await readVersioned(reader, POINT, options)
    attempt.shown()
    const keys = keysOf(inputs.sid, side.common(theirs), side.point, theirs)
    link.write([keys.joinerTag])
    const tag = await reader.read(TAG)
    if (!timingSafeEqual(tag, keys.offererTag)) throw anotherPassword(options.name)
    attempt.right()
    return keys.main
  })
}

async function offererKey(link: Link, reader: LinkReader, options: ChannelOptions): Promise<Buffer> {
  const message = await readVersioned(reader, MESSAGE_1, options)
  return await trying(reader, options.tries, async (attempt) => {
    attempt.shown()
    const inputs = inputsOf(options, message.subarray(0, SID))
    const theirs = message.subarray(SID)
    const side = await reader.unlessLost(beginCpace(inputs))
    const keys = keysOf(inputs.sid, side.common(theirs), theirs, side.point)
    link.write([Buffer.concat([VERSION, side.point])])
    const tag = await reader.read(TAG)
    if (!timingSafeEqual(tag, keys.joinerTag)) throw anotherPassword(options.name)
    attempt.right()
    link.write([keys.offererTag])
    return keys.main
  })
}

async function trying<T>(reader: LinkReader, tries: ChannelTries, run: (attempt: Try) => Promise<T>): Promise<T> {
  const begun = tries.begin()
  try {
    return await run(await reader.unlessLost(begun))
  } finally {
    // Also one that was lost while it waited for its turn.
    void begun.then(
      (attempt) => attempt.end(),
      () => {},
    )
  }
}

async function readVersioned(reader: LinkReader, length: number, options: ChannelOptions): Promise<Buffer> {
  const version = await reader.read(VERSION.length)
  if (!version.equals(VERSION)) {
    options.onHeard?.()
    const text = `channel ${options.name}: version ${version[0]} of the handshake is not known here`
    throw new ProxyError('PROXY_ERR_HANDSHAKE', text)
  }
  const message = await reader.read(length)
  options.onHeard?.()
  return message
}

/** A password is the same however a keyboard composes its letters. */
function inputsOf({ name, password }: ChannelSecret, sid: Uint8Array): CpaceInputs {
  return { prs: Buffer.from(password.reveal().normalize('NFC')), ci: contextOf(name), sid }
}

export function contextOf(name: string): Buffer {
  const parts = ['symport channel', name, 'joiner', 'offerer']
  return lengthsAndValues(...parts.map((part) => Buffer.from(part)))
}

export function keysOf(sid: Uint8Array, common: Buffer, joiner: Uint8Array, offerer: Uint8Array): Keys {
  const share = (point: Uint8Array): Share => ({ point, data: VERSION })
  const isk = intermediateKey(sid, common, share(joiner), share(offerer))
  const derive = (info: string, length: number): Buffer => {
    return Buffer.from(hkdfSync('sha256', isk, sid, `symport channel ${info}`, length))
  }
  // Messages 1 and 2, as they were sent.
  const transcript = Buffer.concat([VERSION, sid, joiner, VERSION, offerer])
  const tag = (end: string): Buffer =>
    createHmac('sha256', derive(`${end} tag`, 32))
      .update(transcript)
      .digest()
  const keys = { joinerTag: tag('joiner'), offererTag: tag('offerer'), main: derive('main connection', 16) }
  isk.fill(0)
  common.fill(0)
  return keys
}

function anotherPassword(name: string): ProxyError {
  return new ProxyError('PROXY_ERR_CHANNEL_PASSWORD', `the password of channel ${name} is another one there`)
}
