import { diagnostics } from './diagnostics.ts'
import { checkEndpoint, formatEndpoint } from './endpoint.ts'
import { ProxyError } from './errors.ts'
import { decodeJson, decodeReason, Frame, plainText, readUInt64 } from './frame.ts'

/** Where something goes or comes: a main connection, or a link that carries none yet. */
export interface Way {
  readonly remote: string | undefined
}

/** A frame other than data. What it says, as far as that is for everybody to know. */
export interface FrameSeen {
  readonly via: Way
  readonly sent: boolean
  /** As in `Frame`; a number if it has no name. */
  readonly type: string
  /** The sub-connection, for the listen family the listener, and 0 for the session. */
  readonly id: number
  /** Bytes that are granted. */
  readonly credit?: number | undefined
  /** The next counted record that is expected. */
  readonly expected?: number | undefined
  /** Why something ended. */
  readonly code?: string | undefined
  /** The endpoint to dial, to listen at, or that is listened at now. */
  readonly at?: string | undefined
  /** The listener that an open leads to. */
  readonly listener?: number | undefined
}

/** A data frame. One that arrived in pieces is several. */
export interface DataSeen {
  readonly via: Way
  readonly sent: boolean
  readonly id: number
  /** Bytes of its payload. */
  readonly length: number
}

/** A record. */
export interface RecordSeen {
  readonly via: Way
  readonly sent: boolean
  /** It is the so-manieth on this link, from 0. */
  readonly number: number
  /** As it stands on the wire. */
  readonly length: number
}

// The callers have asked whether anybody listens, so that nothing is built for nobody.

export function tellFrame(via: Way, sent: boolean, type: number, id: number, payload?: Uint8Array): void {
  const seen: FrameSeen = { via, sent, type: nameOf(type), id, ...(payload && factsOf(type, payload)) }
  diagnostics.frame.publish(seen)
}

export function tellData(via: Way, sent: boolean, id: number, length: number): void {
  const seen: DataSeen = { via, sent, id, length }
  diagnostics.data.publish(seen)
}

export function tellRecord(via: Way, sent: boolean, number: number, length: number): void {
  const seen: RecordSeen = { via, sent, number, length }
  diagnostics.record.publish(seen)
}

function nameOf(type: number): string {
  return Object.entries(Frame).find(([, value]) => value === type)?.[0] ?? `0x${type.toString(16).padStart(2, '0')}`
}

const NO_REASON = new ProxyError('PROXY_ERR_FRAME', 'a reason that is none')

function factsOf(type: number, payload: Uint8Array): Partial<FrameSeen> {
  const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.length)
  try {
    switch (type) {
      case Frame.opened:
      case Frame.credit:
        return { credit: bytes.readUInt32BE() }
      case Frame.hello:
      case Frame.ack:
        return { expected: readUInt64(bytes.subarray(0, 8)) }
      case Frame.goaway:
      case Frame.reset:
      case Frame.refused:
        return { code: bytes[0] === 0 ? undefined : decodeReason(bytes, NO_REASON).code }
      case Frame.open: {
        const { listener, to } = decodeJson(bytes.subarray(4))
        const where = typeof listener === 'number' ? { listener } : { at: shown(to) }
        return { credit: bytes.readUInt32BE(), ...where }
      }
      case Frame.listen:
        return { at: shown(decodeJson(bytes).Listen) }
      case Frame.listening:
        return { at: shown(decodeJson(bytes).bound) }
      default:
        return {}
    }
  } catch {
    // What is wrong with it is for those to say who need it.
    return {}
  }
}

function shown(endpoint: unknown): string {
  return plainText(formatEndpoint(checkEndpoint(endpoint)))
}
