import type { Link } from './link.ts'
import type { SubConnection } from './sub-connection.ts'

/**
 * Joins a sub-connection to the link of a local program, both ways, with half-close. Bulk is sealed out of the buffer it
 * was read into; only what does not fit just now is copied and waits, and the link pauses meanwhile.
 */
export function join(sub: SubConnection, link: Link): void {
  if (sub.destroyed) {
    link.destroy(sub.errored ?? undefined)
    return
  }
  const resume = (): void => link.resume()
  sub.on('drain', resume)
  sub.on('end', () => link.end())
  sub.on('close', () => {
    // After an orderly end the link still has bytes to write, and closes by itself.
    if (sub.errored || !sub.readableEnded || !sub.writableFinished) link.destroy(sub.errored ?? undefined)
  })
  sub.joined(link)
  link.start({
    received(bytes) {
      const sent = sub.tryWrite(bytes)
      if (sent === bytes.length) return sub.canWrite(resume)
      if (sub.destroyed || sub.writableEnded) return false
      return sub.write(Buffer.from(bytes.subarray(sent)))
    },
    drained: () => sub.release(),
    ended: () => sub.end(),
    closed(error) {
      sub.detached()
      if (error) sub.destroy(error)
      else if (!sub.writableEnded || !sub.readableEnded) sub.destroy()
    },
  })
}
