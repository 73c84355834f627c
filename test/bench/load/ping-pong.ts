import { once } from 'node:events'
import { connect } from 'node:net'

export const MESSAGE_BYTES = 64
const SILENCE_MS = 10_000

/**
 * 64 bytes there, 64 bytes back, one at a time over one connection. Gives the round trips in microseconds.
 * `more` is asked before each one, with the number made so far.
 */
export async function pingPong(port: number, more: (made: number) => boolean): Promise<number[]> {
  const message = Buffer.alloc(MESSAGE_BYTES, 'p')
  const times: number[] = []
  let received = 0
  let sentAt = 0
  const socket = connect({
    host: '127.0.0.1',
    port,
    noDelay: true,
    onread: {
      buffer: Buffer.alloc(4096),
      callback: (bytes) => {
        received += bytes
        if (received === MESSAGE_BYTES) {
          times.push((performance.now() - sentAt) * 1000)
          if (more(times.length)) send()
          else socket.end()
        }
        return true
      },
    },
  })
  const send = (): void => {
    received = 0
    sentAt = performance.now()
    socket.write(message)
  }
  socket.setTimeout(SILENCE_MS, () => socket.destroy(new Error(`no answer in ${SILENCE_MS / 1000} s`)))
  // `once` also rejects on an error, so nothing hangs if the tunnel drops the connection. Awaited below: until then
  // its rejection counts as handled.
  const closed = once(socket, 'close')
  closed.catch(() => {})
  await once(socket, 'connect')
  send()
  await closed
  if (more(times.length)) throw new Error(`the connection closed after ${times.length} round trips`)
  return times
}
