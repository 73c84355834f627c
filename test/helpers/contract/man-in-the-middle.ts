import type { Link } from '../../../lib/core/index.ts'
import { memoryPair } from '../../../lib/transports/memory.ts'

/** What to do with bytes on their way; `at` counts those of this direction that came before. Answers what goes on. */
export type Change = (bytes: Buffer, at: number) => Uint8Array

export interface Middle {
  /** For the side that dials, and the side that accepts. */
  readonly dialled: Link
  readonly accepted: Link
  /** All that each side has sent so far. */
  readonly fromDialler: Buffer[]
  readonly fromAcceptor: Buffer[]
  /** Sends bytes of the middle's own. */
  toDialler(bytes: Uint8Array): void
  toAcceptor(bytes: Uint8Array): void
}

/** Two links with somebody between them. */
export function manInTheMiddle(changes: { toAcceptor?: Change; toDialler?: Change } = {}): Middle {
  const left = memoryPair()
  const right = memoryPair()
  const fromDialler: Buffer[] = []
  const fromAcceptor: Buffer[] = []
  relay(left.b, right.a, fromDialler, changes.toAcceptor)
  relay(right.a, left.b, fromAcceptor, changes.toDialler)
  return {
    dialled: left.a,
    accepted: right.b,
    fromDialler,
    fromAcceptor,
    toDialler: (bytes) => left.b.write([bytes]),
    toAcceptor: (bytes) => right.a.write([bytes]),
  }
}

function relay(from: Link, to: Link, seen: Buffer[], change: Change = (bytes) => bytes): void {
  let at = 0
  from.start({
    received(bytes) {
      const copy = Buffer.from(bytes)
      seen.push(copy)
      to.write([change(Buffer.from(copy), at)])
      at += copy.length
      return true
    },
    drained() {},
    ended: () => to.end(),
    closed: () => to.destroy(),
  })
}

/** Flips bits of the byte at `position` of a direction. */
export function flip(position: number, bits: number): Change {
  return (bytes, at) => {
    const index = position - at
    const byte = bytes[index]
    if (byte !== undefined) bytes[index] = byte ^ bits
    return bytes
  }
}
