import { hkdfSync } from 'node:crypto'
import { NoiseHandshake, type Suite, x25519PrivateKey } from '../../../lib/core/noise.ts'
import {
  openRecord,
  RecordKeys,
  recordLength,
  reopenRecord,
  type SealedRecord,
  sealRecord,
} from '../../../lib/core/record.ts'
import { frame, openPayload, PREAMBLE, u32, u64, withLength } from '../core/bytes.ts'

/** Every byte of a session over two links, the second of which resumes. All texts are hex. */
export interface Wire {
  readonly protocol: 1
  readonly suite: Suite
  readonly psk: string
  /** The acceptor's private key. */
  readonly staticKey: string
  readonly links: readonly WireLink[]
}

export interface WireLink {
  /** Private keys. */
  readonly ephemeral: { readonly dialler: string; readonly acceptor: string }
  readonly preamble: string
  readonly payload1: string
  readonly payload2: string
  readonly resumed: boolean
  readonly toAcceptor: WireDirection
  readonly toDialler: WireDirection
}

export interface WireDirection {
  /** Plaintexts; `again N` is record N of this direction on the link before, sent once more. */
  readonly records: readonly string[]
  /** All that goes over the link. */
  readonly bytes: string
  /** Record 65,536, the first under the next key of the chain, if all before it had been sent. */
  readonly rekeyed: string
}

type Direction = 'toAcceptor' | 'toDialler'
type Keys = Readonly<Record<Direction, RecordKeys>>

const DIRECTIONS: readonly Direction[] = ['toAcceptor', 'toDialler']
const REKEYED = 65_536
const PLAIN = frame(0x14, 1)

const hex = (text: string): Buffer => Buffer.from(text, 'hex')
const counting = (from: number, length: number): string =>
  Buffer.from(Array.from({ length }, (_, index) => from + index)).toString('hex')

/** What is said, without the bytes that it becomes. */
function script(suite: Suite): Wire {
  const session = counting(0xa0, 16)
  const limits = '000000000000400000000400'
  const text = (...frames: readonly Buffer[]): string => Buffer.concat(frames).toString('hex')
  const hello = (expected: number, label: string): string =>
    text(frame(0x00, 0, Buffer.concat([u64(expected), hex('01'), withLength(Buffer.from(label))])))
  const open = frame(
    0x10,
    1,
    openPayload(262_144, { to: { Domain: 'tcp', Addr: '127.0.0.1:80' }, from: '192.0.2.1:1' }),
  )
  const data = (bytes: string): Buffer => frame(0x12, 1, bytes)
  const ack = (expected: number): string => text(frame(0x01, 0, u64(expected)))
  const direction = (...records: readonly string[]): WireDirection => ({ records, bytes: '', rekeyed: '' })
  return {
    protocol: 1,
    suite,
    psk: counting(0x01, 32),
    staticKey: counting(0x10, 32),
    links: [
      {
        ephemeral: { dialler: counting(0x30, 32), acceptor: counting(0x50, 32) },
        preamble: PREAMBLE[suite].toString('hex'),
        payload1: `${'00'.repeat(16)}00000000${limits}`,
        payload2: `${session}00${limits}`,
        resumed: false,
        toAcceptor: direction(hello(0, 'node-1'), text(open, data('early')), ack(1), text(data('x'.repeat(300)))),
        toDialler: direction(hello(0, ''), text(frame(0x11, 1, u32(262_144))), ack(1), text(data('answer'))),
      },
      // The dialler's second counted record arrived, the acceptor's second one did not; the ack needs no repeating.
      {
        ephemeral: { dialler: counting(0x70, 32), acceptor: counting(0x90, 32) },
        preamble: PREAMBLE[suite].toString('hex'),
        payload1: `${session}00000001${limits}`,
        payload2: `${session}01${limits}`,
        resumed: true,
        toAcceptor: direction(hello(1, 'node-1'), text(data('more'), frame(0x14, 1))),
        toDialler: direction(hello(2, ''), 'again 3', text(frame(0x14, 1)), text(frame(0x04, 0, Buffer.from([0])))),
      },
    ],
  }
}

export function recordWire(suite: Suite): Wire {
  return makeWire(script(suite))
}

/** The bytes that the present code makes of what a fixture says. */
export function makeWire(wire: Wire): Wire {
  let secret: Buffer | undefined
  let sealed: Partial<Record<Direction, SealedRecord[]>> = {}
  const links = wire.links.map((link) => {
    const { dialler, acceptor } = bothEnds(wire, link)
    const message1 = dialler.write(hex(link.payload1))
    acceptor.read(message1)
    const message2 = acceptor.write(hex(link.payload2))
    dialler.read(message2)
    const begin = {
      toAcceptor: Buffer.concat([hex(link.preamble), withLength(message1)]),
      toDialler: Buffer.concat([hex('01'), withLength(message2)]),
    }
    const split = dialler.split()
    secret ??= secretOf(split, dialler.hash)
    const keys = keysOf(split, link.resumed ? secret : undefined)
    const before = sealed
    sealed = {}
    const made = (direction: Direction): WireDirection => {
      const { records } = link[direction]
      const all = records.map((text) => seal(keys[direction], plainOf(text, before[direction])))
      sealed[direction] = all
      const bytes = Buffer.concat([begin[direction], ...all.flatMap(({ chunks }) => chunks)]).toString('hex')
      return { records, bytes, rekeyed: rekeyed(keys[direction]) }
    }
    return { ...link, toAcceptor: made('toAcceptor'), toDialler: made('toDialler') }
  })
  return { ...wire, links }
}

/** What the present code finds in the bytes of a fixture, as the other end of each direction: all but `bytes` and `rekeyed`. */
export function openWire(wire: Wire): { readonly payloads: string[]; readonly records: Record<Direction, string[]> }[] {
  let secret: Buffer | undefined
  return wire.links.map((link) => {
    const toAcceptor = new Cursor(hex(link.toAcceptor.bytes))
    const toDialler = new Cursor(hex(link.toDialler.bytes))
    const { dialler, acceptor } = bothEnds(wire, link)
    const preamble = toAcceptor.take(7).toString('hex')
    const payload1 = acceptor.read(toAcceptor.takeMessage())
    // Both compute the same; what they would have sent is not looked at here.
    dialler.write(hex(link.payload1))
    acceptor.write(hex(link.payload2))
    const answer = toDialler.take(1).toString('hex')
    const payload2 = dialler.read(toDialler.takeMessage())
    const split = acceptor.split()
    secret ??= secretOf(split, acceptor.hash)
    const keys = keysOf(split, link.resumed ? secret : undefined)
    return {
      payloads: [preamble, payload1.toString('hex'), answer, payload2.toString('hex')],
      records: {
        toAcceptor: toAcceptor.takeRecords(keys.toAcceptor),
        toDialler: toDialler.takeRecords(keys.toDialler),
      },
    }
  })
}

/** The plaintexts of each link, with what went again in full. */
export function plaintexts(wire: Wire): Record<Direction, string[]>[] {
  return wire.links.map((link, number) => {
    const of = (direction: Direction): string[] =>
      link[direction].records.map((text) => {
        const again = /^again (\d+)$/.exec(text)?.[1]
        return again === undefined ? text : (wire.links[number - 1]?.[direction].records[Number(again)] ?? '')
      })
    return { toAcceptor: of('toAcceptor'), toDialler: of('toDialler') }
  })
}

function bothEnds(wire: Wire, link: WireLink): Record<'dialler' | 'acceptor', NoiseHandshake> {
  const common = {
    suite: wire.suite,
    prologue: hex(link.preamble),
    psk: hex(wire.psk),
    static: x25519PrivateKey(hex(wire.staticKey)),
  }
  const { dialler, acceptor } = link.ephemeral
  return {
    dialler: new NoiseHandshake({ ...common, initiator: true, ephemeral: x25519PrivateKey(hex(dialler)) }),
    acceptor: new NoiseHandshake({ ...common, initiator: false, ephemeral: x25519PrivateKey(hex(acceptor)) }),
  }
}

function secretOf(split: readonly Buffer[], hash: Buffer): Buffer {
  return Buffer.from(hkdfSync('sha256', Buffer.concat(split), hash, 'symport resume', 32))
}

function keysOf([toAcceptor, toDialler]: readonly [Buffer, Buffer], salt: Buffer | undefined): Keys {
  return { toAcceptor: new RecordKeys(toAcceptor, salt), toDialler: new RecordKeys(toDialler, salt) }
}

function plainOf(text: string, before: readonly SealedRecord[] | undefined): Buffer {
  const again = /^again (\d+)$/.exec(text)?.[1]
  if (again === undefined) return hex(text)
  const record = before?.[Number(again)]
  if (!record) throw new Error(`there is no record ${again} to send again`)
  return reopenRecord(record)
}

function seal(keys: RecordKeys, plain: Buffer): SealedRecord {
  const number = keys.count
  const chunks = sealRecord(keys, plain)
  return { chunks, bytes: plain.length, key: keys.current.hold(), number }
}

function rekeyed(keys: RecordKeys): string {
  while (keys.count < REKEYED) keys.next()
  return Buffer.concat(sealRecord(keys, PLAIN)).toString('hex')
}

class Cursor {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  take(length: number): Buffer {
    const bytes = this.#bytes.subarray(this.#at, this.#at + length)
    if (bytes.length < length) throw new Error('the bytes end early')
    this.#at += length
    return bytes
  }

  takeMessage(): Buffer {
    return this.take(this.take(2).readUInt16BE())
  }

  takeRecords(keys: RecordKeys): string[] {
    const records: string[] = []
    while (this.#at < this.#bytes.length) {
      const length = recordLength(this.#bytes, this.#at)
      records.push(Buffer.concat(openRecord(keys, this.#bytes, this.#at, length)).toString('hex'))
      this.#at += 4 + length
    }
    return records
  }
}

export { DIRECTIONS }
