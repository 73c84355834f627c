import { ProxyError } from './errors.ts'

/**
 * A frame:
 *
 *     0        1                          5                   8
 *     +--------+--------------------------+-------------------+- - - - - -
 *     | type   | id (u32)                 | length (u24)      | payload
 *     +--------+--------------------------+-------------------+- - - - - -
 *
 * All integers are big-endian. `id` is a sub-connection, a listener for the listen family, and 0 for the session.
 */
export const FRAME_HEADER = 8

export const Frame = {
  hello: 0x00,
  ack: 0x01,
  ping: 0x02,
  pong: 0x03,
  goaway: 0x04,
  open: 0x10,
  opened: 0x11,
  data: 0x12,
  credit: 0x13,
  fin: 0x14,
  reset: 0x15,
  listen: 0x20,
  listening: 0x21,
  refused: 0x22,
  unlisten: 0x23,
} as const

/** Payloads other than data are small; a longer one is an error before anything is gathered for it. */
export const MAX_CONTROL_PAYLOAD = 8192

export function writeFrameHeader(into: Buffer, at: number, type: number, id: number, length: number): void {
  into[at] = type
  into.writeUInt32BE(id, at + 1)
  into.writeUIntBE(length, at + 5, 3)
}

/**
 * Walks the frames of one opened record, which arrives as consecutive slices. Data that crosses a slice is handed on in
 * pieces, anything else is joined first.
 */
export function readFrames(
  slices: readonly Buffer[],
  onFrame: (type: number, id: number, payload: Buffer) => void,
): void {
  let index = 0
  let slice = slices[0] ?? Buffer.alloc(0)
  let at = 0
  const next = (): boolean => {
    const following = slices[index + 1]
    if (at < slice.length || following === undefined) return at < slice.length
    index++
    slice = following
    at = 0
    return slice.length > 0
  }
  const take = (length: number): Buffer => {
    if (slice.length - at >= length) {
      at += length
      return slice.subarray(at - length, at)
    }
    const joined = Buffer.allocUnsafe(length)
    for (let filled = 0; filled < length; ) {
      if (!next()) throw new ProxyError('PROXY_ERR_FRAME', 'a frame is longer than its record')
      const part = slice.subarray(at, at + length - filled)
      joined.set(part, filled)
      filled += part.length
      at += part.length
    }
    return joined
  }
  while (next()) {
    const header = take(FRAME_HEADER)
    const type = header.readUInt8(0)
    const id = header.readUInt32BE(1)
    let length = header.readUIntBE(5, 3)
    if (type !== Frame.data) {
      if (length > MAX_CONTROL_PAYLOAD) throw new ProxyError('PROXY_ERR_FRAME', `a control frame of ${length} bytes`)
      onFrame(type, id, take(length))
      continue
    }
    do {
      if (length > 0 && !next()) throw new ProxyError('PROXY_ERR_FRAME', 'a frame is longer than its record')
      const part = Math.min(length, slice.length - at)
      onFrame(type, id, take(part))
      length -= part
    } while (length > 0)
  }
}

export function readUInt64(payload: Buffer): number {
  if (payload.length !== 8) throw new ProxyError('PROXY_ERR_FRAME', 'a 64-bit number has 8 bytes')
  const value = payload.readUInt32BE(0) * 2 ** 32 + payload.readUInt32BE(4)
  if (!Number.isSafeInteger(value)) throw new ProxyError('PROXY_ERR_FRAME', 'a 64-bit number beyond 2^53')
  return value
}

export function writeUInt64(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(8)
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), 0)
  bytes.writeUInt32BE(value >>> 0, 4)
  return bytes
}

/** Text from the other side, fit for a log line: without control, format and line separator characters. */
export function plainText(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?')
}

const REASON_TEXT = 500

/** In the first byte of a reason: whether the same thing may succeed later. */
const RETRYABLE = 0x80

/** Why something ended: `u8 n, plus 0x80 if retryable | n bytes of code | text`, for reset, refused and goaway. */
export function encodeReason(reason: ProxyError | undefined): Buffer {
  if (!reason) return Buffer.from([0])
  const code = Buffer.from(reason.code.slice(0, 64), 'latin1')
  const first = Buffer.from([code.length + (reason.retryable ? RETRYABLE : 0)])
  return Buffer.concat([first, code, Buffer.from(reason.message.slice(0, REASON_TEXT), 'utf8')])
}

/** The other way. What does not look like a reason becomes `fallback`; control characters never reach a log. */
export function decodeReason(payload: Buffer, fallback: ProxyError): ProxyError {
  const first = payload[0] ?? 0
  const length = first % RETRYABLE
  const code = payload.toString('latin1', 1, 1 + length)
  if (!/^PROXY_ERR_[A-Z_]{1,54}$/.test(code)) return fallback
  const text = plainText(payload.toString('utf8', 1 + length))
  return new ProxyError(code as `PROXY_ERR_${string}`, text.slice(0, REASON_TEXT) || fallback.message, {
    retryable: first >= RETRYABLE,
  })
}

/** JSON payloads: one object, checked by whoever asked for it. */
export function decodeJson(payload: Buffer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(payload.toString('utf8'))
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value }
  } catch {
    // Falls through: what is wrong with it does not matter.
  }
  throw new ProxyError('PROXY_ERR_FRAME', 'a payload that is not a JSON object')
}
