import type { Transform } from 'node:stream'
import { type Mask, maskBody } from './web-inspect-mask.ts'
import type { KeptBody } from './web-recording.ts'

/** A body as somebody may see it. */
export interface ShownBody {
  /** Bytes that passed, as they were sent. */
  readonly size: number
  readonly type?: string | undefined
  /** `base64`: it is no text. */
  readonly encoding: 'utf8' | 'base64'
  readonly text: string
  /** Only its beginning is here. */
  readonly truncated: boolean
  /** What it was sent in and is shown without: `gzip`. */
  readonly coding?: string | undefined
}

/** Bytes that a body may have when it is decoded. */
const LONGEST = 262_144
/** Codings upon each other. */
const MOST_CODINGS = 3

export interface ShowOptions {
  readonly mask?: Mask | undefined
  /** Bytes at most, decoded. Default 262,144. */
  readonly most?: number | undefined
}

/** Decodes, masks, and says what is missing. Undefined where there was none. */
export async function showBody(
  body: KeptBody,
  headers: readonly string[],
  { mask, most = LONGEST }: ShowOptions = {},
): Promise<ShownBody | undefined> {
  if (body.size === 0) return undefined
  const type = valueOf(headers, 'content-type')
  const coding = valueOf(headers, 'content-encoding')?.toLowerCase()
  const decoded = coding === undefined ? undefined : await decode(body.bytes, coding, most)
  const isDecoded = decoded !== undefined
  const all = maskParts(decoded?.bytes ?? body.bytes, type ?? '', mask)
  const bytes = all.subarray(0, most)
  const truncated = !body.isWhole || (decoded?.truncated ?? false) || bytes.length < all.length
  const shown = {
    ...{ size: body.size, truncated },
    ...(type === undefined ? {} : { type }),
    ...(isDecoded && coding !== undefined ? { coding } : {}),
  }
  const text = asText(bytes, type ?? '')
  return text === undefined
    ? { ...shown, encoding: 'base64', text: bytes.toString('base64') }
    : { ...shown, encoding: 'utf8', text: maskBody(text, type ?? '', mask) }
}

function valueOf(headers: readonly string[], wanted: string): string | undefined {
  const at = headers.findIndex((name, i) => i % 2 === 0 && name.toLowerCase() === wanted)
  return at < 0 ? undefined : headers[at + 1]
}

/** Forms with files are no text, and have fields all the same. */
function maskParts(bytes: Buffer, type: string, mask: Mask | undefined): Buffer {
  if (!/^\s*multipart\//i.test(type)) return bytes
  return Buffer.from(maskBody(bytes.toString('latin1'), type, mask), 'latin1')
}

/** Undefined if it is none, in UTF-8 or in what it says that it is. */
function asText(bytes: Uint8Array, type: string): string | undefined {
  const charset = /;\s*charset="?([\w.:-]{1,40})/i.exec(type)?.[1] ?? 'utf-8'
  for (const label of new Set(['utf-8', charset])) {
    try {
      // At its end a character may be missing a part.
      const text = new TextDecoder(label, { fatal: true, ignoreBOM: true }).decode(bytes, { stream: true })
      if (!text.includes('\0')) return text
    } catch {
      // It is something else.
    }
  }
  return undefined
}

/** As much of it as can be decoded, up to `most` bytes. Undefined if it is no coding that is known, or not what it says. */
async function decode(
  bytes: Buffer,
  coding: string,
  most: number,
): Promise<{ readonly bytes: Buffer; readonly truncated: boolean } | undefined> {
  const codings = coding
    .split(',')
    .map((one) => one.trim())
    .filter((one) => one !== 'identity')
  if (codings.length > MOST_CODINGS) return undefined
  let all = { bytes, truncated: false }
  for (const one of codings.reverse()) {
    const stream = await decoderOf(one, all.bytes)
    const step = stream && (await collect(stream, all.bytes, most))
    if (!step) return undefined
    all = { bytes: step.bytes, truncated: all.truncated || step.truncated }
  }
  return all
}

async function decoderOf(coding: string, bytes: Buffer): Promise<Transform | undefined> {
  const zlib = await import('node:zlib')
  // What is cut off in the middle is decoded up to there.
  const options = { finishFlush: zlib.constants.Z_SYNC_FLUSH }
  switch (coding) {
    case 'gzip':
    case 'x-gzip':
      return zlib.createGunzip(options)
    case 'deflate':
      // Some send it without the header of zlib (RFC 9110 section 8.4.1.2).
      return ((bytes[0] ?? 0) & 0x0f) === 8 ? zlib.createInflate(options) : zlib.createInflateRaw(options)
    case 'br':
      return zlib.createBrotliDecompress({ finishFlush: zlib.constants.BROTLI_OPERATION_FLUSH })
    default:
      return undefined
  }
}

/** A few bytes may become millions: the rest of them is never made. */
async function collect(
  stream: Transform,
  bytes: Buffer,
  most: number,
): Promise<{ bytes: Buffer; truncated: boolean } | undefined> {
  const chunks: Buffer[] = []
  let size = 0
  return await new Promise((resolve) => {
    const finish = (truncated: boolean): void => {
      resolve({ bytes: Buffer.concat(chunks).subarray(0, most), truncated })
      stream.destroy()
    }
    stream.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      size += chunk.length
      if (size > most) finish(true)
    })
    stream.on('end', () => finish(false))
    stream.on('error', () => (size > 0 ? finish(true) : resolve(undefined)))
    stream.end(bytes)
  })
}
