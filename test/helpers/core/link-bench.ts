import type { Keepalive } from '../../../lib/core/heartbeat.ts'
import { LinkReader } from '../../../lib/core/link-reader.ts'
import { RecordKeys } from '../../../lib/core/record.ts'
import { RecordLink } from '../../../lib/core/record-link.ts'
import { u32 } from './bytes.ts'
import { FakeLink } from './fake-link.ts'
import { firstChain, forgeOpen, forgeSeal, recordKey } from './forge-records.ts'

/** Silence never matters, unless a test says so. */
const PATIENT: Keepalive = { idle: 1e9, timeout: 1e9 }

/** A RecordLink over a link that is moved by hand; node-forge plays its far side. */
export class LinkBench {
  readonly fake: FakeLink = new FakeLink()
  readonly link: RecordLink
  readonly #sent: Buffer
  readonly #received: Buffer
  #opened = 0
  #sealed = 0

  /** `fill`: the byte that its secrets are made of; links with different ones have different keys. */
  constructor(fill = 0x11, keepalive: Keepalive = PATIENT) {
    const [mine, theirs] = [Buffer.alloc(32, fill), Buffer.alloc(32, fill ^ 0xff)]
    this.#sent = recordKey(firstChain(mine))
    this.#received = recordKey(firstChain(theirs))
    const keys = { send: new RecordKeys(mine), receive: new RecordKeys(theirs) }
    this.link = new RecordLink({ link: this.fake, reader: new LinkReader(this.fake), ...keys }, keepalive)
  }

  /** The plaintext of every record that was sent since the last call. */
  sent(): Buffer[] {
    let bytes = Buffer.concat(this.fake.written.splice(0))
    const records: Buffer[] = []
    while (bytes.length > 0) {
      const length = 4 + bytes.readUInt32BE(0)
      const plain = forgeOpen(this.#sent, this.#opened++, bytes.subarray(0, length))
      if (!plain) throw new Error('a record that does not open')
      records.push(plain)
      bytes = bytes.subarray(length)
    }
    return records
  }

  /** The next record of the far side, not sent. */
  seal(...frames: readonly Uint8Array[]): Buffer {
    return forgeSeal(this.#received, this.#sealed++, Buffer.concat(frames))
  }

  /** Frames come in from the far side, as one record. */
  receive(...frames: readonly Uint8Array[]): void {
    this.fake.feed(this.seal(...frames))
  }

  /** Something comes in that nobody has sealed. */
  receiveNoise(): void {
    this.fake.feed(Buffer.concat([u32(17), Buffer.alloc(17)]))
  }
}
