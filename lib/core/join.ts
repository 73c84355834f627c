import type { Link, LinkSink } from './link.ts'
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
  const joint = new Joint(sub, link)
  sub.on('drain', joint.resume)
  sub.on('end', () => link.end())
  sub.on('close', () => {
    // After an orderly end the link still has bytes to write, and closes by itself.
    if (sub.errored || !sub.readableEnded || !sub.writableFinished) link.destroy(sub.errored ?? undefined)
  })
  sub.joined(link)
  link.start(joint)
}

/** What the link tells. A class, because thousands of them may idle: methods take no memory each. */
class Joint implements LinkSink {
  readonly #sub: SubConnection
  readonly #link: Link
  readonly resume = (): void => this.#link.resume()

  constructor(sub: SubConnection, link: Link) {
    this.#sub = sub
    this.#link = link
  }

  received(bytes: Uint8Array): boolean {
    const sub = this.#sub
    const sent = sub.tryWrite(bytes)
    if (sent === bytes.length) return sub.canWrite(this.resume)
    if (sub.destroyed || sub.writableEnded) return false
    return sub.write(Buffer.from(bytes.subarray(sent)))
  }

  drained(): void {
    this.#sub.release()
  }

  ended(): void {
    this.#sub.end()
  }

  closed(error?: Error): void {
    const sub = this.#sub
    sub.detached()
    if (error) sub.destroy(error)
    else if (!sub.writableEnded || !sub.readableEnded) sub.destroy()
  }
}
