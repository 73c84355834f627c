import type { Link } from './link.ts'
import type { SubConnection } from './sub-connection.ts'

/**
 * Joins a sub-connection to the link of a local program, both ways, with half-close. Bulk is sealed out of the buffer it
 * was read into; only what does not fit just now is copied and waits, and the link pauses meanwhile.
 */
export function join(sub: SubConnection, link: Link): void {
  sub.joined(link)
  sub.on('data', (chunk: Buffer) => {
    link.write([chunk])
    if (link.pending > 0) sub.pause()
  })
  sub.on('drain', () => link.resume())
  sub.on('end', () => link.end())
  sub.on('close', () => link.destroy(sub.errored ?? undefined))
  link.start({
    received(bytes) {
      const sent = sub.tryWrite(bytes)
      if (sent === bytes.length) return true
      if (sub.destroyed || sub.writableEnded) return false
      return sub.write(Buffer.from(bytes.subarray(sent)))
    },
    drained() {
      sub.release()
      sub.resume()
    },
    ended: () => sub.end(),
    closed(error) {
      if (error) sub.destroy(error)
      else if (!sub.writableEnded || !sub.readableEnded) sub.destroy()
    },
  })
}
