import { createHash, randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, createReadStream, openSync, writeSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, connect, createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Stage } from './stage.ts'

const given = new Set<number>()

/**
 * A port that nobody holds, for programs that cannot be given port 0. Not one of those that the system takes for outgoing
 * connections (from 32,768 on): of these another test may have one the next moment.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(12_000, 32_000)
    if (given.has(port) || !(await isFree(port))) continue
    given.add(port)
    return port
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer()
  try {
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    server.close()
    await once(server, 'close')
    return true
  } catch {
    return false
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
