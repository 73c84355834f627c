import { ProxyError } from './errors.ts'
import { SubConnection, type SubConnectionHost } from './sub-connection.ts'
import { EARLY_WINDOW, ReceiveWindow, WindowPool } from './window.ts'

/**
 * Two sub-connections that are each other's far side, with no main connection between them: what is listened on here
 * can be forwarded to here. Flow control and half-close are the same as over a wire.
 */
export function localPair(remote?: string): [near: SubConnection, far: SubConnection] {
  const pool = new WindowPool()
  const near = new LocalHost()
  const far = new LocalHost()
  const pair = [near, far].map((host, id) => {
    const size = pool.first(id)
    const receive = new ReceiveWindow(pool, size, EARLY_WINDOW)
    host.sub = new SubConnection({ id, host, credit: size, receive, remote })
    host.sub.on('error', () => {})
    return host.sub
  })
  near.peer = pair[1]
  far.peer = pair[0]
  return pair as [SubConnection, SubConnection]
}

class LocalHost implements SubConnectionHost {
  sub: SubConnection | undefined
  peer: SubConnection | undefined
  readonly rtt = undefined
  readonly congested = false
  #queued = false

  sendData(_sub: SubConnection, bytes: Uint8Array): number {
    // The bytes may lie in a buffer that is read into again.
    this.peer?.onData(Buffer.from(bytes))
    return bytes.length
  }

  sendFin(): void {
    this.peer?.onFin()
  }

  sendReset(_sub: SubConnection, reason: ProxyError | undefined): void {
    const peer = this.peer
    const error = reason ?? new ProxyError('PROXY_ERR_RESET', 'the other side reset the sub-connection')
    if (peer && !peer.destroyed) setImmediate(() => peer.onLost(error))
  }

  sendCredit(_sub: SubConnection, credit: number): void {
    this.peer?.onCredit(credit)
  }

  queue(sub: SubConnection): void {
    if (this.#queued) return
    this.#queued = true
    setImmediate(() => {
      this.#queued = false
      if (sub.onWritable(Number.MAX_SAFE_INTEGER)) this.queue(sub)
    })
  }

  ended(): void {
    this.peer = undefined
  }
}
