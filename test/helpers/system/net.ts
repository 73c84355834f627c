import { createHash, randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, createReadStream, openSync, writeSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Stage } from './stage.ts'

/** Ports below those that the system gives away itself, in slices; a process has a slice by holding its first port. */
const [FIRST, SLICE, SLICES] = [12_000, 400, 50]

/** The slice of this process, and how many of its ports were given. */
class Ports {
  #first: Promise<number> | undefined
  #given = 0

  async next(): Promise<number> {
    this.#first ??= this.#take()
    const first = await this.#first
    for (;;) {
      const port = first + 1 + (this.#given++ % (SLICE - 1))
      if (await isFree(port)) return port
    }
  }

  async #take(): Promise<number> {
    for (let slice = randomInt(SLICES); ; slice = (slice + 1) % SLICES) {
      const port = FIRST + slice * SLICE
      const held = await holds(port)
      held?.unref()
      if (held) return port
    }
  }
}

const ports = new Ports()

/**
 * A port that nobody holds, for programs that cannot be given port 0, and for what is to be gone later: neither the
 * system nor another process of the tests gives it to anybody, while the port of a server that was closed may be
 * another's in a moment, or that of the very connection that is made to it.
 */
export function freePort(): Promise<number> {
  return ports.next()
}

async function isFree(port: number): Promise<boolean> {
  const server = await holds(port)
  if (!server) return false
  server.close()
  await once(server, 'close')
  return true
}

async function holds(port: number): Promise<Server | undefined> {
  const server = createServer((socket) => socket.destroy())
  try {
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    return server
  } catch {
    return undefined
  }
}

/** Whether something on this machine takes connections on the port. */
export async function answers(port: number, host = '127.0.0.1'): Promise<boolean> {
  const socket = connect(port, host)
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** Tries again, for things that tell nobody when they are ready. The last failure is the error. */
export async function eventually<T>(attempt: () => Promise<T>, timeoutMs = 20_000): Promise<T> {
  const end = performance.now() + timeoutMs
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      if (performance.now() > end) throw error
    }
    await delay(100)
  }
}

/** Writes a file of random bytes and gives their SHA-256. */
export function writeRandomFile(path: string, size: number): string {
  const hash = createHash('sha256')
  const file = openSync(path, 'w')
  for (let left = size; left > 0; ) {
    const block = randomBytes(Math.min(left, 1024 * 1024))
    hash.update(block)
    writeSync(file, block)
    left -= block.length
  }
  closeSync(file)
  return hash.digest('hex')
}

export async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const block of createReadStream(path)) hash.update(block)
  return hash.digest('hex')
}

/** A web server inside the test process that answers everything with `text`: gives its port. */
export async function startWebPage(stage: Stage, text: string): Promise<number> {
  const server = createHttpServer((_, response) => response.end(text))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  stage.defer(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}
