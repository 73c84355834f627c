import { generateKeyPairSync, hkdfSync, type KeyObject } from 'node:crypto'
import type { Role } from '../../lib/core/handshake.ts'
import { NoiseHandshake, type Suite } from '../../lib/core/noise.ts'
import { RecordKeys } from '../../lib/core/record.ts'
import { type Limits, PREAMBLE, u32, withLength } from '../helpers/core/bytes.ts'
import type { RawLink } from './raw-link.ts'

/** The raw side of handshakes. Both sides of a run share these, so that nothing waits for scrypt. */
export const PSK: Buffer = Buffer.alloc(32, 0x6b)
export const STATIC_KEY: KeyObject = generateKeyPairSync('x25519').privateKey
export const SHARED_KEY: Buffer = Buffer.alloc(16, 0x2a)

/** What a handshake gives the raw side. */
export interface Hands {
  readonly send: RecordKeys
  readonly receive: RecordKeys
  /** Of a first handshake: what later ones of the session are salted with. */
  readonly secret: Buffer
  readonly session: Buffer
  readonly resumed: boolean
  /** Payload 2, as it was sent. */
  readonly payload: Buffer
}

const LIMITS: Limits = { subConnections: 16_384, pendingOpens: 1024 }

const limitsOf = ({ subConnections, pendingOpens }: Limits): Buffer =>
  Buffer.concat([u32(0), u32(subConnections), u32(pendingOpens)])

export function firstPayload(session: Uint8Array, epoch: number, limits: Limits = LIMITS): Buffer {
  return Buffer.concat([session, u32(epoch), limitsOf(limits)])
}

export function secondPayload(session: Uint8Array, resumed: number, limits: Limits = LIMITS): Buffer {
  return Buffer.concat([session, Buffer.from([resumed]), limitsOf(limits)])
}

function handsOf(role: Role, noise: NoiseHandshake, payload2: Buffer, resume: Buffer | undefined): Hands {
  const split = noise.split()
  const secret = Buffer.from(hkdfSync('sha256', Buffer.concat(split), noise.hash, 'symport resume', 32))
  const [mine, theirs] = role === 'dialler' ? split : ([split[1], split[0]] as const)
  const resumed = payload2[16] === 1
  const salt = resumed ? resume : undefined
  return {
    send: new RecordKeys(mine, salt),
    receive: new RecordKeys(theirs, salt),
    secret: salt ?? secret,
    session: payload2.subarray(0, 16),
    resumed,
    payload: payload2,
  }
}

export interface DialOptions {
  readonly name?: Uint8Array
  readonly psk?: Uint8Array
}

/** All that a dialler sends first, and what it makes of the answer. */
export function beginDial(
  suite: Suite,
  payload: Uint8Array,
  { name = Buffer.alloc(0), psk = PSK }: DialOptions = {},
): { bytes: Buffer; finish(message: Buffer, resume?: Buffer): Hands } {
  const preamble = Buffer.concat([PREAMBLE[suite].subarray(0, 6), Buffer.from([name.length]), name])
  const noise = new NoiseHandshake({ suite, initiator: true, prologue: preamble, psk, static: STATIC_KEY })
  return {
    bytes: Buffer.concat([preamble, withLength(noise.write(payload))]),
    finish: (message, resume) => handsOf('dialler', noise, noise.read(message), resume),
  }
}

/** Undefined if it was refused. `resume`: the secret of the session that `payload` asks for. */
export async function rawDial(
  link: RawLink,
  suite: Suite,
  payload: Uint8Array,
  resume?: Buffer,
): Promise<Hands | undefined> {
  const dialler = beginDial(suite, payload)
  link.sendRaw(dialler.bytes)
  const status = await link.read(1)
  const message = status?.[0] === 1 ? await link.readMessage() : undefined
  return message && dialler.finish(message, resume)
}

export interface RealDialler {
  readonly preamble: Buffer
  /** Payload 1. */
  readonly payload: Buffer
  /** `resume`: the secret of the session that it asks for. */
  answer(payload: Buffer, resume?: Buffer): { readonly hands: Hands; readonly bytes: Buffer }
}

/** The first message of a real dialler, and how to answer it. Undefined if the link ended before. */
export async function rawAccept(link: RawLink): Promise<RealDialler | undefined> {
  const preamble = await link.read(7)
  const message = preamble && (await link.readMessage())
  if (!message) return undefined
  const suite = preamble[5] === 1 ? 'NNpsk0' : 'NKpsk0'
  const noise = new NoiseHandshake({ suite, initiator: false, prologue: preamble, psk: PSK, static: STATIC_KEY })
  const payload = noise.read(message)
  return {
    preamble,
    payload,
    answer(payload2, resume) {
      const bytes = Buffer.concat([Buffer.from([1]), withLength(noise.write(payload2))])
      return { hands: handsOf('acceptor', noise, payload2, resume), bytes }
    },
  }
}

/** Both ends hold SHARED_KEY. `role` is the raw side's. */
export async function rawKeys(link: RawLink, role: Role, random: Buffer): Promise<Hands | undefined> {
  link.sendRaw(random)
  const theirs = await link.read(32)
  if (!theirs) return undefined
  const salt = Buffer.concat(role === 'dialler' ? [random, theirs] : [theirs, random])
  const derive = (to: string): RecordKeys =>
    new RecordKeys(Buffer.from(hkdfSync('sha256', SHARED_KEY, salt, `symport to ${to}`, 32)))
  const [toAcceptor, toDialler] = [derive('acceptor'), derive('dialler')]
  const keys = role === 'dialler' ? { send: toAcceptor, receive: toDialler } : { send: toDialler, receive: toAcceptor }
  return { ...keys, secret: Buffer.alloc(0), session: Buffer.alloc(16), resumed: false, payload: Buffer.alloc(0) }
}
