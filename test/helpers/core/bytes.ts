import type { Suite } from '../../../lib/core/noise.ts'

/** The wire, written down a second time: nothing here is taken from lib/core, so that a change there is noticed. */

/** Preambles without a credential name: magic, version, suite, length of the name. */
export const PREAMBLE: Record<Suite, Buffer> = {
  NNpsk0: hex('f553594d 01 01 00'),
  NKpsk0: hex('f553594d 01 02 00'),
}

/** `hex('01 02')`: blanks are for people. */
export function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(/\s/g, ''), 'hex')
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}

/** One frame. `length` lies about the payload where a test wants that. */
export function frame(
  type: number,
  id = 0,
  payload: Uint8Array | string = '',
  length: number = Buffer.from(payload).length,
): Buffer {
  const header = Buffer.alloc(8)
  header.writeUInt8(type, 0)
  header.writeUInt32BE(id, 1)
  header.writeUIntBE(length, 5, 3)
  return Buffer.concat([header, Buffer.from(payload)])
}

/** The payload of an open: credit, then JSON. */
export function openPayload(credit: number, request: unknown): Buffer {
  return Buffer.concat([u32(credit), Buffer.from(JSON.stringify(request))])
}

/** A handshake message with its u16 length. */
export function withLength(message: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([message.length >> 8, message.length & 0xff]), message])
}

export interface Limits {
  subConnections: number
  pendingOpens: number
}

const DEFAULT_LIMITS: Limits = { subConnections: 16_384, pendingOpens: 1024 }

/** New session, epoch 0, no features, limits. */
export function payload1({ subConnections, pendingOpens }: Limits = DEFAULT_LIMITS): Buffer {
  return Buffer.concat([Buffer.alloc(16), u32(0), u32(0), u32(subConnections), u32(pendingOpens)])
}

/** Some session, not resumed, no features, limits. */
export function payload2({ subConnections, pendingOpens }: Limits = DEFAULT_LIMITS): Buffer {
  return Buffer.concat([Buffer.alloc(16, 0x5e), Buffer.from([0]), u32(0), u32(subConnections), u32(pendingOpens)])
}
