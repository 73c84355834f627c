import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Processes } from '../processes.ts'
import { MESSAGE_BYTES } from './ping-pong.ts'
import { runWrk } from './wrk.ts'

/**
 * wrk as the client of an echo server: a client in Node.js would need about as much CPU as the tunnel it measures.
 * The message reads as an HTTP/1.0 answer, so that its echo pleases wrk, which then closes and connects anew.
 */
const MESSAGE = answerOf(MESSAGE_BYTES)

/** wrk insists that the first request a script makes, which it does not send, is HTTP/1. */
const SCRIPT = `local message = ${JSON.stringify(MESSAGE)}
local asked = 0
function request()
  asked = asked + 1
  return asked == 1 and "GET / HTTP/1.0\\r\\n\\r\\n" or message
end
`

/**
 * Gives a function that makes connections through a port to an echo server: connect, 64 bytes each way, the client
 * closes. It answers how many a second.
 */
export function connectionLoad(
  processes: Processes,
  atOnce: number,
): (port: number, seconds: number) => Promise<number> {
  const script = join(processes.folder(), 'connections.lua')
  writeFileSync(script, SCRIPT)
  return async (port, seconds) => {
    const report = await runWrk(processes, port, { connections: atOnce, seconds, script })
    return report.requestsPerSecond
  }
}

function answerOf(bytes: number): string {
  const head = (length: number): string => `HTTP/1.0 200 OK\r\nContent-Length: ${length}\r\n\r\n`
  const body = bytes - head(10).length
  return head(body) + 'c'.repeat(body)
}
