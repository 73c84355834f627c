import { Frame } from '../../../lib/core/frame.ts'
import { walk } from '../../fuzz/mutations.ts'

/** A frame as it is compared. */
export interface SeenFrame {
  readonly type: number
  readonly id: number
  readonly payload: Buffer
}

export function framesOf(plain: Buffer): SeenFrame[] {
  const frames: SeenFrame[] = []
  const whole = walk(plain, (type, id, payload) => frames.push({ type, id, payload: Buffer.from(payload) }))
  if (!whole) throw new Error(`not whole frames: ${plain.toString('hex')}`)
  return frames
}

/** Where the bytes of a direction are cut into frames is free. */
export function joined(frames: readonly SeenFrame[]): SeenFrame[] {
  const all: SeenFrame[] = []
  for (const frame of frames) {
    const last = all.at(-1)
    if (last?.type === Frame.data && frame.type === Frame.data && last.id === frame.id) {
      all[all.length - 1] = { ...last, payload: Buffer.concat([last.payload, frame.payload]) }
    } else {
      all.push(frame)
    }
  }
  return all
}

/**
 * What of a frame is the protocol's: not how large a window is, as long as there is one, not the order of keys, and not
 * the words of a reason, which are for people.
 */
export function essence({ type, id, payload }: SeenFrame): string {
  const name = `${type.toString(16).padStart(2, '0')} ${id}`
  switch (type) {
    case Frame.open:
      return `${name} ${payload.readUInt32BE(0) > 0 ? 'a window' : 'no window'} ${canonical(payload.subarray(4))}`
    case Frame.listen:
    case Frame.listening:
      return `${name} ${canonical(payload)}`
    case Frame.opened:
    case Frame.credit:
      return `${name} ${payload.length === 4 && payload.readUInt32BE(0) > 0 ? 'a window' : 'no window'}`
    case Frame.reset:
    case Frame.refused:
    case Frame.goaway: {
      const first = payload[0] ?? 0
      return `${name} ${first >= 0x80 ? 'retryable' : 'final'} ${payload.toString('latin1', 1, 1 + (first & 0x7f))}`
    }
    default:
      return `${name} ${payload.toString('hex')}`
  }
}

/** JSON without the order of its keys. */
function canonical(json: Buffer): string {
  return JSON.stringify(JSON.parse(json.toString()), (_key, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  )
}

/** Hex for people: header, blank, payload. */
export function hexOf({ type, id, payload }: SeenFrame): string {
  const header = Buffer.alloc(8)
  header.writeUInt8(type, 0)
  header.writeUInt32BE(id, 1)
  header.writeUIntBE(payload.length, 5, 3)
  return `${header.toString('hex')} ${payload.toString('hex')}`.trim()
}
