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
  draining: 0x05,
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

// Byte by byte: Buffer's own methods check again what is known here, and frames are many.
export function writeFrameHeader(into: Buffer, at: number, type: number, id: number, length: number): void {
  into[at] = type
  into[at + 1] = id >>> 24
  into[at + 2] = id >>> 16
  into[at + 3] = id >>> 8
  into[at + 4] = id
  into[at + 5] = length >>> 16
  into[at + 6] = length >>> 8
  into[at + 7] = length
}

/** `whole`: the bytes of memory that `payload` is a part of. */
type OnFrame = (type: number, id: number, payload: Buffer, whole: number) => void

/**
 * Walks the frames of one opened record, which arrives as consecutive slices. Data that crosses a slice is handed on in
 * pieces, anything else is joined first.
 */
export function readFrames(slices: readonly Buffer[], onFrame: OnFrame): void {
  const slice = slices[0]
  if (!slice) return
  let at = 0
  while (slice.length - at >= FRAME_HEADER) {
    const length = u24(slice, at + 5)
    const end = at + FRAME_HEADER + length
    // What crosses the border of two slices is rare, and left to the careful way.
    if (end > slice.length) break
    const type = slice[at] ?? 0
    if (type !== Frame.data) checkControl(length)
    onFrame(type, u32(slice, at + 1), slice.subarray(at + FRAME_HEADER, end), slice.length)
    at = end
  }
  if (at < slice.length || slices.length > 1) readAcross([slice.subarray(at), ...slices.slice(1)], onFrame)
}

function u32(bytes: Uint8Array, at: number): number {
  return u24(bytes, at) * 256 + (bytes[at + 3] ?? 0)
}

function u24(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0)
}

function checkControl(length: number): void {
  if (length > MAX_CONTROL_PAYLOAD) throw new ProxyError('PROXY_ERR_FRAME', `a control frame of ${length} bytes`)
}

/** Frames of which the first may end in a later slice. */
function readAcross(slices: readonly Buffer[], onFrame: OnFrame): void {
  const rest = slices.filter((slice) => slice.length > 0)
  // Up to `length` bytes that stand together.
  const next = (length: number): Buffer => {
    const slice = rest[0]
    if (!slice) throw new ProxyError('PROXY_ERR_FRAME', 'a frame is longer than its record')
    const part = slice.subarray(0, length)
    if (part.length === slice.length) rest.shift()
    else rest[0] = slice.subarray(part.length)
    return part
  }
  const take = (length: number): Buffer => {
    const parts: Buffer[] = []
    for (let missing = length; missing > 0; missing -= parts.at(-1)?.length ?? 0) parts.push(next(missing))
    return parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts)
  }
  while (rest.length > 0) {
    const header = take(FRAME_HEADER)
    const [type, id] = [header[0] ?? 0, u32(header, 1)]
    let length = u24(header, 5)
    if (type !== Frame.data || length === 0) {
      checkControl(length)
      const payload = take(length)
      onFrame(type, id, payload, payload.buffer.byteLength)
      continue
    }
    while (length > 0) {
      const part = next(length)
      onFrame(type, id, part, part.buffer.byteLength)
      length -= part.length
    }
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
