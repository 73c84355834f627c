import { closeSync, fstatSync, openSync, writeSync } from 'node:fs'

/** Who may read a log: its owner, who writes it, and the group. */
const MODE = 0o640
/** How long all in all a reader that takes nothing may hold up a line, and between two tries, in ms. */
const PATIENCE = 100
const PAUSE = 5

/**
 * Where log lines go, one after the other, in the moment in which they are written: the last one counts most. What cannot
 * be written (a full disk, a closed pipe) is lost, and nothing is kept for later: it costs the log, never the tunnel.
 */
export class LogFile {
  readonly #path: string | undefined
  #fd: number
  /** The last line stands there in part. */
  #torn = false
  /** The reader took nothing the last time: it is not waited for again before it does. */
  #stuck = false

  /** `to`: a file, or a descriptor that is open already. Throws if the file cannot be opened. */
  constructor(to: string | number) {
    this.#path = typeof to === 'string' ? to : undefined
    this.#fd = typeof to === 'string' ? openSync(to, 'a', MODE) : to
  }

  write(line: string): void {
    try {
      this.#write(Buffer.from(this.#torn ? `\n${line}` : line))
    } catch {
      // See above.
    }
  }

  /** Goes on in a new file of the same name: the old one was moved away. If there can be none, in the old one. */
  reopen(): void {
    if (this.#path === undefined) return
    try {
      // Whoever made the log more private means the next one too.
      const fd = openSync(this.#path, 'a', MODE & fstatSync(this.#fd).mode)
      closeSync(this.#fd)
      this.#fd = fd
      this.#torn = false
    } catch {
      // See above.
    }
  }

  #write(bytes: Buffer): void {
    let waited = this.#stuck ? PATIENCE : 0
    for (let at = 0; at < bytes.length; ) {
      try {
        at += writeSync(this.#fd, bytes, at)
        this.#torn = at < bytes.length
        this.#stuck = false
      } catch (error) {
        const full = error instanceof Error && 'code' in error && error.code === 'EAGAIN'
        if (!full) throw error
        if (waited >= PATIENCE) {
          this.#stuck = true
          return
        }
        waited += PAUSE
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE)
      }
    }
  }
}
