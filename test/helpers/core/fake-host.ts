import type { ProxyError } from '../../../lib/core/errors.ts'
import { SubConnection, type SubConnectionHost } from '../../../lib/core/sub-connection.ts'
import { ReceiveWindow, WindowPool } from '../../../lib/core/window.ts'

/** Carries a sub-connection nowhere, and writes down what it wants to send. */
export class FakeHost implements SubConnectionHost {
  rtt: number | undefined
  /** What the link takes now. */
  room: number = Number.POSITIVE_INFINITY
  congested = false
  readonly data: Buffer[] = []
  /** Everything else, in order: `fin`, `reset CODE`, `credit N`, `queue`, `ended`. */
  readonly calls: string[] = []
  credit = 0

  sendData(_sub: SubConnection, bytes: Uint8Array): number {
    const taken = Math.min(this.room, bytes.length)
    this.room -= taken
    if (taken > 0) this.data.push(Buffer.from(bytes.subarray(0, taken)))
    return taken
  }

  sendFin(): void {
    this.calls.push('fin')
  }

  sendReset(_sub: SubConnection, reason: ProxyError | undefined): void {
    this.calls.push(reason ? `reset ${reason.code}` : 'reset')
  }

  sendCredit(_sub: SubConnection, credit: number): void {
    this.credit += credit
    this.calls.push(`credit ${credit}`)
  }

  queue(): void {
    this.calls.push('queue')
  }

  ended(): void {
    this.calls.push('ended')
  }
}

export interface Hosted {
  readonly host: FakeHost
  readonly sub: SubConnection
  readonly pool: WindowPool
}

/** `window`: what the peer may send to it. `credit`: what it may send at first. */
export function hosted({ window = 65_536, credit = 65_536 }: { window?: number; credit?: number } = {}): Hosted {
  const host = new FakeHost()
  const pool = new WindowPool()
  const receive = new ReceiveWindow(pool, window, 0)
  const sub = new SubConnection({ id: 1, host, credit, receive })
  sub.on('error', () => {})
  return { host, sub, pool }
}
