import { Frame } from '../../lib/core/frame.ts'
import { openPayload, u32, u64 } from '../helpers/core/bytes.ts'
import type { Random } from './random.ts'

/** A frame before it is encoded; `length` where its header shall lie. */
export interface Piece {
  readonly type: number
  readonly id: number
  readonly payload: Buffer
  readonly length?: number
}

/** The domains of the real side, see subject.ts; nobody knows the last one. */
export const DOMAINS: readonly [string, ...string[]] = [
  'echo',
  'sink',
  'drain',
  'never',
  'refuses',
  'late',
  'source',
  'breaks',
  'nowhere',
]

/** Types of frames that either side has sent. */
export interface Types {
  readonly sent: Set<number>
  readonly received: Set<number>
}

interface Sub {
  readonly ours: boolean
  answered: boolean
  sent: '' | 'fin' | 'reset'
  got: '' | 'fin' | 'reset'
  /** Bytes that we have sent, and may have sent in all. */
  bytes: number
  granted: number
}

const RESET = Buffer.from([0])
/** Sub-connections and listeners that a session has at most, so that there is room for many kinds of frames. */
const MANY = 24

/**
 * What the raw side knows of a session: enough to make frames that are right, so that one that is wrong meets a session in
 * the middle of things. It is told of every frame that passes, and may be mistaken.
 */
export class Model {
  readonly subs: Map<number, Sub> = new Map()
  /** Records were skipped, by a number that was not true: from here on nothing can be said about what comes. */
  blind = false
  /** What the real side may have sent for an id at most, whatever it made of our frames; and what it has. */
  readonly #allowed = new Map<number, number>()
  readonly #taken = new Map<number, number>()
  #nextId: number
  #nextListener = 1
  readonly #listeners = new Set<number>()
  /** Listeners that the real side has asked for. */
  readonly #unanswered = new Set<number>()
  readonly #atUs = new Set<number>()
  readonly #acked: () => number
  readonly #types: Types

  /** `acked`: what an ack would say now. */
  constructor(role: 'dialler' | 'acceptor', acked: () => number, types: Types) {
    this.#types = types
    this.#nextId = role === 'dialler' ? 1 : 2
    this.#acked = acked
  }

  /** Ids that are worth a mistake: in use, just free again, about to be used. */
  someId(random: Random): number {
    if (random.chance(0.7)) return random.pick([...this.subs.keys()]) ?? this.#nextId
    return random.pick([0, 1, 2, 3, this.#nextId, this.#nextId + 1, 0xffff_ffff, random.u32()])
  }

  /** Frames for one record, as a peer with manners sends them, each of which `change` may replace. */
  record(random: Random, change: (piece: Piece) => readonly Piece[]): Piece[] {
    const uncounted = random.chance(0.2)
    const pieces: Piece[] = []
    for (let left = random.between(1, uncounted ? 3 : 12); left > 0; left--) {
      for (const piece of change(uncounted ? this.#uncounted(random) : this.#counted(random))) {
        this.#sent(piece)
        pieces.push(piece)
      }
    }
    return pieces
  }

  #uncounted(random: Random): Piece {
    const kind = random.weighted({ ack: 5, ping: 2, pong: 2 })
    if (kind === 'ack') return { type: Frame.ack, id: 0, payload: u64(this.#acked()) }
    return { type: Frame[kind], id: 0, payload: random.bytes(8) }
  }

  #counted(random: Random): Piece {
    const kind = random.weighted({
      open: this.subs.size < MANY ? 8 : 1,
      data: 40,
      fin: 6,
      reset: 8,
      credit: 10,
      opened: 10,
      listen: this.#listeners.size < MANY ? 4 : 1,
      unlisten: 3,
      listening: 4,
      refused: 2,
      draining: 1,
      goaway: 0.2,
    })
    return this.#make(kind, random) ?? this.#open(random)
  }

  #make(kind: string, random: Random): Piece | undefined {
    switch (kind) {
      case 'data': {
        const [id, sub] = this.#some(random, ({ sent, bytes, granted }) => sent === '' && granted > bytes)
        if (!sub) return undefined
        const most = random.chance(0.02) ? 300_000 : random.chance(0.2) ? 20_000 : 300
        return { type: Frame.data, id, payload: random.bytes(random.int(Math.min(most, sub.granted - sub.bytes) + 1)) }
      }
      case 'fin':
      case 'reset': {
        const [id, sub] = this.#some(random, ({ sent }) => sent === '')
        if (!sub) return undefined
        return { type: Frame[kind], id, payload: kind === 'fin' ? Buffer.alloc(0) : this.#reason(random) }
      }
      case 'credit': {
        const [id, sub] = this.#some(random, () => true)
        return sub && { type: Frame.credit, id, payload: u32(random.between(1, 100_000)) }
      }
      case 'opened': {
        const [id, sub] = this.#some(random, ({ ours, answered }) => !ours && !answered)
        return sub && { type: Frame.opened, id, payload: u32(random.pick([0, 1, 5000, 16_384, 262_144])) }
      }
      case 'listen': {
        const Domain = random.pick(['code', 'code', 'code', 'refuses', 'late', 'nowhere'])
        const json = JSON.stringify({ Listen: { Domain, Addr: 'x' } })
        return { type: Frame.listen, id: this.#nextListener, payload: Buffer.from(json) }
      }
      case 'unlisten': {
        const id = random.pick([...this.#listeners])
        return id === undefined ? undefined : { type: Frame.unlisten, id, payload: Buffer.alloc(0) }
      }
      case 'listening':
      case 'refused': {
        const id = random.pick([...this.#unanswered])
        if (id === undefined) return undefined
        const bound = Buffer.from(JSON.stringify({ bound: { Domain: 'raw', Addr: `${id}` } }))
        return { type: Frame[kind], id, payload: kind === 'listening' ? bound : this.#reason(random) }
      }
      case 'draining':
        return { type: Frame.draining, id: 0, payload: Buffer.from([random.int(2)]) }
      case 'goaway':
        return { type: Frame.goaway, id: 0, payload: this.#reason(random) }
      default:
        return undefined
    }
  }

  #open(random: Random): Piece {
    const listener = random.chance(0.3) ? random.pick([...this.#atUs]) : undefined
    const to = { Domain: random.pick(DOMAINS), Addr: 'x' }
    const request = listener === undefined ? { to, from: '192.0.2.1:5' } : { listener }
    const credit = random.pick([0, 1, 1000, 65_536, 262_144, 1_000_000])
    return { type: Frame.open, id: this.#nextId, payload: openPayload(credit, request) }
  }

  #some(random: Random, fits: (sub: Sub) => boolean): [number, Sub | undefined] {
    const fitting = [...this.subs].filter(([, sub]) => fits(sub))
    return random.pick(fitting) ?? [0, undefined]
  }

  #reason(random: Random): Buffer {
    if (random.chance(0.5)) return RESET
    const code = random.pick(['PROXY_ERR_OWN', 'PROXY_ERR_DIAL_FAILED', 'PROXY_ERR_CLOSED'])
    return Buffer.concat([Buffer.from([code.length + random.int(2) * 0x80]), Buffer.from(`${code}because`)])
  }

  // --- what passes ---

  /** A frame that leaves, right or wrong. */
  #sent({ type, id }: Piece): void {
    const sub = this.subs.get(id)
    switch (type) {
      case Frame.open:
        if (id === this.#nextId) this.#nextId += 2
        this.subs.set(id, { ours: true, answered: true, sent: '', got: '', bytes: 0, granted: 16_384 })
        break
      case Frame.opened:
        if (sub) sub.answered = true
        break
      case Frame.fin:
      case Frame.reset:
        if (!sub) break
        sub.sent = type === Frame.fin && sub.sent === '' ? 'fin' : 'reset'
        this.#settle(id, sub)
        break
      case Frame.listen:
        if (id === this.#nextListener) this.#nextListener++
        this.#listeners.add(id)
        break
      case Frame.unlisten:
        this.#listeners.delete(id)
        break
      case Frame.listening:
        this.#unanswered.delete(id)
        this.#atUs.add(id)
        break
      case Frame.refused:
        this.#unanswered.delete(id)
    }
  }

  /** A frame as it left: what the real side will see. */
  left(type: number, id: number, payload: Buffer): void {
    this.#types.sent.add(type)
    const sub = this.subs.get(id)
    if (type === Frame.data && sub) sub.bytes += payload.length
    if (type === Frame.open && payload.length >= 4) this.#allow(id, payload.readUInt32BE(0))
    if ((type === Frame.opened || type === Frame.credit) && payload.length === 4) {
      this.#allow(id, payload.readUInt32BE(0))
    }
  }

  /** A frame that came. Answers what is wrong with it. */
  received(type: number, id: number, payload: Buffer): string | undefined {
    const fault = this.#received(type, id, payload)
    return this.blind ? undefined : fault
  }

  #received(type: number, id: number, payload: Buffer): string | undefined {
    this.#types.received.add(type)
    const sub = this.subs.get(id)
    switch (type) {
      case Frame.open:
        if (payload.length < 4) return 'an open without credit'
        if (id === 0 || id % 2 === this.#nextId % 2) return `an open with the id ${id}`
        this.#allow(id, 16_384)
        this.subs.set(id, {
          ours: false,
          answered: false,
          sent: '',
          got: '',
          bytes: 0,
          granted: payload.readUInt32BE(0),
        })
        break
      case Frame.opened:
        if (sub) sub.granted = payload.readUInt32BE(0)
        break
      case Frame.credit:
        if (payload.readUInt32BE(0) === 0) return 'a credit of zero'
        if (sub) sub.granted += payload.readUInt32BE(0)
        break
      case Frame.data: {
        const taken = (this.#taken.get(id) ?? 0) + payload.length
        this.#taken.set(id, taken)
        const allowed = this.#allowed.get(id) ?? 0
        if (taken > allowed) return `${taken} bytes for ${id}, of ${allowed} that were ever granted`
        break
      }
      case Frame.fin:
      case Frame.reset:
        if (!sub) break
        if (type === Frame.fin && sub.got !== '') return `a fin for ${id} behind its end`
        sub.got = type === Frame.fin ? 'fin' : 'reset'
        this.#settle(id, sub)
        break
      case Frame.listen:
        this.#unanswered.add(id)
        break
      case Frame.unlisten:
        this.#unanswered.delete(id)
        this.#atUs.delete(id)
        break
      case Frame.refused:
        this.#listeners.delete(id)
    }
    return undefined
  }

  #allow(id: number, credit: number): void {
    this.#allowed.set(id, (this.#allowed.get(id) ?? 0) + credit)
  }

  #settle(id: number, sub: Sub): void {
    if (sub.sent !== '' && sub.got !== '') this.subs.delete(id)
  }
}
