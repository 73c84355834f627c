import { createHash } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import type { Random } from '../fuzz/random.ts'

/** Where the mapped ports are. */
export interface Ports {
  readonly echo: number
  readonly digest: number
}

/** What a connection does; it rejects when anything but the expected came back. */
type Errand = (ports: Ports, random: Random) => Promise<void>

const MIB = 1024 * 1024
/** Longer than a link may be away, and than all that waits meanwhile takes. */
const PATIENCE_MS = 30_000
/** Between two connections of one worker, so that a machine with other work to do stays usable. */
const PAUSE_MS = 2

export const ERRANDS: Readonly<Record<'short' | 'half-close' | 'bulk', Errand>> = {
  short: async ({ echo }, random) => {
    const request = random.bytes(random.between(1, 2000))
    await talk(echo, request, request, 'answer')
  },
  'half-close': async ({ digest }, random) => {
    const bytes = random.bytes(random.between(0, 20_000))
    await talk(digest, bytes, createHash('sha256').update(bytes).digest(), 'end')
  },
  bulk: async ({ echo }, random) => {
    const bytes = random.bytes(MIB)
    await talk(echo, bytes, bytes, 'end')
  },
}

/**
 * Sends, and compares what comes back. `answer`: hangs up when the answer is whole. `end`: half-closes first, and reads to
 * the end.
 */
function talk(port: number, bytes: Buffer, expected: Buffer, until: 'answer' | 'end'): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket: Socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true })
    let at = 0
    let done = false
    const settle = (fault?: string): void => {
      if (done) return
      done = true
      clearTimeout(timer)
      if (until === 'answer' && !fault) socket.end()
      else socket.destroy()
      if (fault) reject(new Error(`${fault} after ${at} of ${expected.length} bytes`))
      else resolve()
    }
    const timer = setTimeout(() => settle(`nothing more came for ${PATIENCE_MS / 1000} s`), PATIENCE_MS)
    socket.on('error', (error) => settle(error.message))
    socket.on('close', () => settle('the connection was closed'))
    socket.on('end', () => settle(at === expected.length ? undefined : 'the connection ended'))
    socket.on('data', (chunk: Buffer) => {
      if (!chunk.equals(expected.subarray(at, at + chunk.length))) settle('wrong bytes came')
      at += chunk.length
      if (until === 'answer' && at === expected.length) settle()
    })
    if (until === 'end') socket.end(bytes)
    else socket.write(bytes)
  })
}

/** Connects again and again, until `signal` fires; tells of each connection, and why it failed. */
export async function work(
  errand: Errand,
  ports: Ports,
  random: Random,
  signal: AbortSignal,
  onDone: (fault: string | undefined) => void,
): Promise<void> {
  while (!signal.aborted) {
    await errand(ports, random).then(
      () => onDone(undefined),
      (error) => onDone(error instanceof Error ? error.message : String(error)),
    )
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
  }
}
