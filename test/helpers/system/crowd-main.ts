// A process of its own for thousands of connections.
//
//     echo                      sends back what comes; but what begins with "pour" is poured into, and never read again
//     strangers HOST PORT N     opens N connections from many addresses, says nothing, and replaces those that are ended
//     visitors HOST PORT N      opens N connections; the first is poured into from both sides and never read, each of the
//                               others then carries bytes there and back
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

const AT_ONCE = 256
/** How many of those that were ended are replaced in a second. It keeps a table of 1,024 full whose entries last 10 s: 103 would do. */
const REPLACED_PER_SECOND = 120
const QUIET_MS = 250
const POUR = 'pour'
const MESSAGE = 64

function ignore(): void {}

function pour(socket: Socket): void {
  const chunk = Buffer.alloc(65_536)
  const fill = (): void => {
    while (!socket.destroyed && socket.write(chunk));
  }
  socket.on('drain', fill)
  fill()
}

function echo(): void {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', ignore)
    socket.once('data', (first) => {
      if (first.toString('latin1', 0, POUR.length) === POUR) {
        socket.pause()
        pour(socket)
      } else {
        socket.write(first)
        socket.on('data', (chunk) => socket.write(chunk))
      }
    })
  })
  server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () =>
    console.log((server.address() as AddressInfo).port),
  )
}

/** Runs `act` for each number below `count`, some at once. */
async function forEach(count: number, act: (number: number) => Promise<void>): Promise<void> {
  let next = 0
  const work = async (): Promise<void> => {
    while (next < count) await act(next++)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
}

async function strangers(host: string, port: number, count: number): Promise<void> {
  const open = new Set<Socket>()
  let ended = 0
  const enter = async (number: number): Promise<void> => {
    const localAddress = `127.0.${1 + (number % 100)}.${1 + (Math.floor(number / 100) % 250)}`
    const socket = connect({ host, port, localAddress })
    socket.on('error', ignore)
    socket.on('close', () => {
      if (open.delete(socket)) ended++
    })
    // One that is reset at once counts: it was let in.
    await Promise.race([once(socket, 'connect'), once(socket, 'close')]).catch(ignore)
    open.add(socket)
    if (socket.destroyed && open.delete(socket)) ended++
    socket.resume()
  }
  await forEach(count, enter)
  // The system lets them in before the server does: it is done when it ends no more of them.
  for (let before = Number.NaN; before !== ended; ) {
    before = ended
    await sleep(QUIET_MS)
  }
  console.log(`opened ${count}`)
  let number = count
  setInterval(() => {
    for (let replaced = 0; replaced < REPLACED_PER_SECOND / 10 && ended > 0; replaced++) {
      ended--
      void enter(number++)
    }
  }, 100)
}

async function visitors(host: string, port: number, count: number): Promise<void> {
  const first = connect({ host, port })
  first.on('error', ignore)
  first.pause()
  await once(first, 'connect')
  first.write(POUR)
  pour(first)

  const sockets: Socket[] = []
  await forEach(count - 1, async () => {
    const socket = connect({ host, port, noDelay: true })
    await once(socket, 'connect')
    sockets.push(socket)
  })
  console.log(`opened ${count}`)
  for (let round = 1; round <= 2; round++) {
    await forEach(sockets.length, async (number) => {
      const socket = sockets[number]
      if (!socket) return
      const message = Buffer.alloc(MESSAGE, `${round} ${number} `)
      socket.write(message)
      let answer = Buffer.alloc(0)
      while (answer.length < MESSAGE) {
        const [chunk] = (await once(socket, 'data')) as [Buffer]
        answer = Buffer.concat([answer, chunk])
      }
      if (!answer.equals(message)) throw new Error(`${number}: another answer than expected`)
    })
    console.log(`round ${round}: ${sockets.length}`)
  }
  console.log(first.destroyed ? 'the first one is gone' : 'the first one is still there')
}

const [what, host = '', port, count] = process.argv.slice(2)
if (what === 'echo') echo()
else if (what === 'strangers') await strangers(host, Number(port), Number(count))
else await visitors(host, Number(port), Number(count))
