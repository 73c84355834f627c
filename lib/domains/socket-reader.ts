import type { Socket } from 'node:net'
import { ProxyError } from '../core/index.ts'

const NOTHING = Buffer.alloc(0)

/** What a client says before it is clear where its connection goes; the rest is for whoever has it then. */
export class SocketReader {
  readonly #socket: Socket
  #bytes: Buffer = NOTHING

  constructor(socket: Socket) {
    this.#socket = socket
  }

  /**
   * Resolves with all that there is, once that is `length` bytes. Nothing is taken.
   *
   * @throws ProxyError PROXY_ERR_LINK_LOST if the client ends before
   */
  peek(length: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const socket = this.#socket
      const settle = (): void => {
        socket.off('readable', look)
        socket.off('end', gone)
        socket.off('close', gone)
      }
      const gone = (): void => {
        settle()
        reject(new ProxyError('PROXY_ERR_LINK_LOST', 'the client went before it said what it wants'))
      }
      const look = (): void => {
        while (this.#bytes.length < length) {
          const chunk: Buffer | null = socket.read()
          if (!chunk) return
          this.#bytes = this.#bytes.length > 0 ? Buffer.concat([this.#bytes, chunk]) : chunk
        }
        settle()
        resolve(this.#bytes)
      }
      socket.on('readable', look)
      socket.on('end', gone)
      socket.on('close', gone)
      if (this.#bytes.length < length && (socket.destroyed || socket.readableEnded)) gone()
      else look()
    })
  }

  /** Takes the first `length` bytes of those that there are. */
  take(length: number): Buffer {
    const taken = this.#bytes.subarray(0, length)
    this.#bytes = this.#bytes.subarray(length)
    return taken
  }

  /** Takes all that has been read. */
  rest(): Buffer {
    return this.take(this.#bytes.length)
  }

  /** Gives the socket back what was not taken. */
  putBack(): void {
    const bytes = this.rest()
    if (bytes.length > 0) this.#socket.unshift(bytes)
  }
}
