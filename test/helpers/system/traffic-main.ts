// Either end of the streams that `carry` opens. Without arguments it takes them and prints its port; with a host, a port
// and the streams in JSON it opens them, and prints "over" when all of them are. A line for each that has ended.
import { createHash, type Hash } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { Random } from '../faults/random.ts'
import type { Order, Passed, Stream, StreamEnd } from './traffic.ts'

const CHUNK = 131_072
/** Each piece of this length is another one. */
const STAMPED = 1024
const ORDERS: readonly Order[] = ['together', 'up, then down', 'down, then up']
/** id, order, bytes up, bytes down. */
const HEADER = 16
const PATTERN = new Random(1).bytes(CHUNK)

class Direction {
  bytes = 0
  readonly #hash: Hash = createHash('sha256')

  add(chunk: Uint8Array): void {
    this.bytes += chunk.length
    this.#hash.update(chunk)
  }

  end(): Passed {
    return { bytes: this.bytes, sha256: this.#hash.digest('hex') }
  }
}

/** Says what became of one end of a stream. `way` tells the two directions apart in the bytes. */
async function exchange(socket: Socket, stream: Stream, way: 'up' | 'down', rest?: Buffer): Promise<void> {
  const sent = new Direction()
  const received = new Direction()
  if (rest) received.add(rest)
  socket.on('data', (chunk) => received.add(chunk))
  const ended = once(socket, 'end')
  ended.catch(() => {})
  let failure: string | null = null
  try {
    const second = way === 'up' ? 'down, then up' : 'up, then down'
    if (stream.order === second) await ended
    await send(socket, stream, way, sent)
    socket.end()
    await ended
    if (!socket.writableFinished) await once(socket, 'finish')
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error)
    socket.destroy()
  }
  const end: StreamEnd = { id: stream.id, sent: sent.end(), received: received.end(), failure }
  console.log(JSON.stringify(end))
}

async function send(socket: Socket, { id, ...lengths }: Stream, way: 'up' | 'down', sent: Direction): Promise<void> {
  const chunk = Buffer.from(PATTERN)
  for (let left = lengths[way]; left > 0; left -= CHUNK) {
    for (let at = 0; at < CHUNK; at += STAMPED) {
      chunk.writeUInt16BE(way === 'up' ? id : 0x8000 | id, at)
      chunk.writeUIntBE(sent.bytes + at, at + 2, 6)
    }
    const part = chunk.subarray(0, Math.min(left, CHUNK))
    sent.add(part)
    await new Promise<void>((resolve, reject) => {
      socket.write(part, (error) => (error ? reject(error) : resolve()))
    })
  }
}

async function accept(socket: Socket): Promise<void> {
  while (socket.readableLength < HEADER) await once(socket, 'readable')
  const header: Buffer = socket.read()
  const [id, order, up, down] = [0, 4, 8, 12].map((at) => header.readUInt32BE(at))
  if (id === undefined || up === undefined || down === undefined) throw new Error('no header')
  const stream = { id, up, down, order: ORDERS[order ?? 0] ?? 'together' }
  await exchange(socket, stream, 'down', header.subarray(HEADER))
}

async function open(to: { host: string; port: number }, stream: Stream): Promise<void> {
  const socket = connect({ ...to, allowHalfOpen: true })
  // Told by whatever waits for something else.
  socket.on('error', () => {})
  const header = Buffer.alloc(HEADER)
  const { id, order, up, down } = stream
  for (const [index, value] of [id, ORDERS.indexOf(order), up, down].entries()) header.writeUInt32BE(value, 4 * index)
  socket.write(header)
  await exchange(socket, stream, 'up')
}

const [host, port, streams] = process.argv.slice(2)
if (host === undefined) {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    accept(socket).catch((error) => {
      console.log(String(error))
      socket.destroy()
    })
  })
  server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port))
} else {
  const all: Stream[] = JSON.parse(streams ?? '[]')
  await Promise.all(all.map((stream) => open({ host, port: Number(port) }, stream)))
  console.log('over')
}
