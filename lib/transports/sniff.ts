import type { Socket } from 'node:net'
import { ProxyError } from '../core/index.ts'

/** What a look at first bytes gives: an answer, or how many bytes there must be before another look is worth it. */
export type Verdict<T> = { readonly found: T } | { readonly need: number }

const NOTHING = Buffer.alloc(0)

/** The first bytes of a connection, before it is clear who shall have them. Whoever it is gets all of them. */
export class Sniffer {
  readonly #socket: Socket
  #bytes: Buffer = NOTHING

  constructor(socket: Socket) {
    this.#socket = socket
  }

  /**
   * Resolves with what `judge` finds in the bytes so far, of which it is asked first when there is one. Within the turn
   * of the event loop in which they came, so that nothing more has been read by then.
   *
   * @throws ProxyError PROXY_ERR_LINK_LOST if the other side ends before; whatever `judge` throws
   */
  until<T>(judge: (bytes: Buffer) => Verdict<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const socket = this.#socket
      let need = 1
      const settle = (): void => {
        socket.off('readable', look)
        socket.off('end', gone)
        socket.off('close', gone)
      }
      const gone = (): void => {
        settle()
        const said = this.#bytes.length > 0 ? 'before it was clear what it wanted' : 'without a word'
        reject(
          new ProxyError('PROXY_ERR_LINK_LOST', `the other side closed the connection ${said}`, { retryable: true }),
        )
      }
      const look = (): void => {
        this.#read()
        if (this.#bytes.length < need) return
        try {
          const verdict = judge(this.#bytes)
          if ('need' in verdict) {
            need = verdict.need
            return
          }
          settle()
          resolve(verdict.found)
        } catch (error) {
          settle()
          reject(error)
        }
      }
      socket.on('readable', look)
      socket.on('end', gone)
      socket.on('close', gone)
      if (socket.destroyed || socket.readableEnded) gone()
      else look()
    })
  }

  /** The first `length` bytes have been used. */
  drop(length: number): void {
    this.#bytes = this.#bytes.subarray(length)
  }

  /** Hands out what was read and not used. */
  take(): Buffer {
    const bytes = this.#bytes
    this.#bytes = NOTHING
    return bytes
  }

  /** Gives the socket back what was read and not used, for whoever reads from it next. */
  putBack(): void {
    const bytes = this.take()
    if (bytes.length > 0) this.#socket.unshift(bytes)
  }

  #read(): void {
    for (let chunk: Buffer | null = this.#socket.read(); chunk; chunk = this.#socket.read()) {
      this.#bytes = this.#bytes.length > 0 ? Buffer.concat([this.#bytes, chunk]) : chunk
    }
  }
}

/** What is spoken on a connection, by section 7 of the protocol. */
export type Speech = 'symport' | 'tls' | 'http'

/** @throws ProxyError PROXY_ERR_UNKNOWN_PROTOCOL */
export function readSpeech(bytes: Buffer): Verdict<Speech> {
  const first = bytes[0]
  if (first === undefined) return { need: 1 }
  if (first >= 0x80) return { found: 'symport' }
  if (first === 0x16) return { found: 'tls' }
  if (isLetter(first)) return { found: 'http' }
  const shown = `0x${first.toString(16).padStart(2, '0')}`
  throw new ProxyError('PROXY_ERR_UNKNOWN_PROTOCOL', `a first byte of ${shown} is no beginning of anything spoken here`)
}

function isLetter(byte: number): boolean {
  const lower = byte | 0x20
  return lower >= 0x61 && lower <= 0x7a
}
