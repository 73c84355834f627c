import { connect, type Socket } from 'node:net'
import { MESSAGE_BYTES } from './ping-pong.ts'

const AT_ONCE = 32
const SILENCE_MS = 10_000

/** Opens `count` connections, proves each with a message and its echo, and leaves them open and silent. */
export async function openIdle(port: number, count: number): Promise<Disposable> {
  const sockets: Socket[] = []
  const worker = async (): Promise<void> => {
    while (sockets.length < count) {
      const socket = connect({ host: '127.0.0.1', port, noDelay: true })
      sockets.push(socket)
      await echoed(socket)
    }
  }
  const close = (): void => {
    for (const socket of sockets) socket.destroy()
  }
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, worker))
  } catch (error) {
    close()
    throw error
  }
  return { [Symbol.dispose]: close }
}

function echoed(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    let received = 0
    socket.setTimeout(SILENCE_MS, () => socket.destroy(new Error(`no answer in ${SILENCE_MS / 1000} s`)))
    socket.on('data', (chunk) => {
      received += chunk.length
      if (received !== MESSAGE_BYTES) return
      socket.setTimeout(0)
      resolve()
    })
    socket.on('error', reject)
    socket.on('close', () => reject(new Error('an idle connection was closed')))
    socket.write(Buffer.alloc(MESSAGE_BYTES, 'i'))
  })
}
