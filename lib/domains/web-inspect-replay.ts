import { createServer } from 'node:http'
import { ProxyError } from '../core/errors.ts'
import { localPair } from '../core/local-pair.ts'
import { BY_EACH_HOP } from './header-names.ts'
import type { Recording } from './web-recording.ts'
import type { WebServing } from './web-serving.ts'

/** How long the answer may take, all of it, in ms. */
const PATIENCE = 30_000
/** Of what the server took, and a little more. */
const LONGEST_HEAD = 262_144

/**
 * Asks the same once more, as if the visitor had: of whoever has the name and path now, by the rules of now. Resolves with
 * the new entry when all of the answer has come, or no more is waited for.
 *
 * @throws ProxyError PROXY_ERR_REPLAY
 */
export async function replay(web: WebServing, first: Recording, patience: number = PATIENCE): Promise<Recording> {
  const problem = problemOf(first)
  if (problem !== undefined) throw refused(`${first.id} cannot be replayed: ${problem}`)
  const origin = { ...first.origin }
  const server = createServer({ maxHeaderSize: LONGEST_HEAD, requestTimeout: 0, headersTimeout: 0 })
  server.maxHeadersCount = 0
  server.on('request', (request, response) => web.onRequest(request, response, origin))
  server.on('clientError', (_error, socket) => socket.destroy())
  const [near, far] = localPair(origin.remote)
  let again: Recording | undefined
  let forget = (): void => {}
  const isOver = new Promise<void>((resolve) => {
    forget = web.recorder.expect(origin, {
      of: first.id,
      begun: (recording) => {
        again = recording
      },
      ended: () => resolve(),
    })
    near.on('error', () => resolve())
    near.on('close', () => resolve())
    near.on('end', () => resolve())
  })
  server.emit('connection', far)
  near.resume()
  near.write(headOf(first))
  if (first.asked.size > 0) near.write(first.asked.bytes)
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, patience)
  })
  await Promise.race([isOver, late])
  clearTimeout(timer)
  forget()
  near.destroy()
  if (again) return again
  throw refused(`${first.id} cannot be replayed: nobody listens for ${first.authority || 'its path'} any more`)
}

function problemOf({ state, isUpgraded, isHeadCut, hasBody, asked }: Recording): string | undefined {
  if (isUpgraded) return 'it became a WebSocket'
  if (isHeadCut) return 'its head was too long to be kept'
  if (hasBody && !asked.isWhole) {
    if (asked.size === 0 && state !== 'open') return 'its body was not read'
    return asked.isOpen ? 'its body is still coming' : `of its body of ${asked.size} bytes only the beginning was kept`
  }
  return undefined
}

function headOf({ method, url, authority, headers, asked }: Recording): Buffer {
  const lines = [`${method} ${url} HTTP/1.1`, `Host: ${authority}`, 'Connection: close']
  let length: string | undefined
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const [name = '', value = ''] = [headers[i], headers[i + 1]]
    const plain = name.toLowerCase()
    if (plain === 'content-length' || plain === 'transfer-encoding') length = String(asked.size)
    if (!BY_EACH_HOP.has(plain)) lines.push(`${name}: ${value}`)
  }
  if (length !== undefined || asked.size > 0) lines.push(`Content-Length: ${asked.size}`)
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
}

function refused(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_REPLAY', message)
}
