import type { NetConnectOpts, Socket } from 'node:net'
import { type AbortSignalLike, ProxyError } from '../core/index.ts'
import { connectLink, type ReadBuffer, type SocketLink } from './socket-link.ts'

export interface DialSocketOptions {
  signal?: AbortSignalLike | undefined
  /** In ms. */
  timeout: number
  /** What is dialled, for people. */
  name: string
  /** What to look at if there is no answer. */
  advice?: string | undefined
  readBuffer?: ReadBuffer
}

/** Connects a socket; resolves when it is connected, rejects with PROXY_ERR_DIAL_FAILED in plain words. */
export async function dialSocket(options: NetConnectOpts, dial: DialSocketOptions): Promise<SocketLink> {
  if (dial.signal?.aborted) throw dial.signal.reason
  const link = connectLink(options, dial.readBuffer)
  const { socket } = link
  const giveUp = (): void => {
    socket.destroy(new ProxyError('PROXY_ERR_ABORTED', 'the dial was given up'))
  }
  const timer = setTimeout(() => {
    socket.destroy(Object.assign(new Error('timed out'), { code: 'ETIMEDOUT' }))
  }, dial.timeout)
  dial.signal?.addEventListener('abort', giveUp)
  try {
    await connected(socket)
    return link
  } catch (error) {
    socket.destroy()
    throw dialError(error, dial.name, dial.advice)
  } finally {
    clearTimeout(timer)
    dial.signal?.removeEventListener('abort', giveUp)
  }
}

function connected(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.off('error', reject)
      resolve()
    })
  })
}

const DIAL_ERRORS: Record<string, (name: string) => string> = {
  ECONNREFUSED: (name) => `nothing listens on ${name}`,
  ENOENT: (name) => `nothing listens on ${name}`,
  ENOTFOUND: (name) => `the name in ${name} is not known`,
  EAI_AGAIN: (name) => `the name in ${name} cannot be looked up now`,
  ETIMEDOUT: (name) => `no answer from ${name} in time`,
  EHOSTUNREACH: (name) => `there is no way to ${name}`,
  ENETUNREACH: (name) => `there is no way to ${name}`,
  ECONNRESET: (name) => `${name} closed the connection at once`,
  EACCES: (name) => `permission denied for ${name}`,
  EMFILE: () => 'too many open files (see ulimit -n)',
}

export function dialError(error: unknown, name: string, advice?: string): ProxyError {
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : ''
  const why = DIAL_ERRORS[code]?.(name)
  const text = why && advice && code === 'ETIMEDOUT' ? `${why}: ${advice}` : why
  if (error instanceof ProxyError) return error
  const message = text ?? (error instanceof Error ? error.message : String(error))
  // Whatever stands in the table may be over in a moment, but for a path that nobody may use.
  return new ProxyError('PROXY_ERR_DIAL_FAILED', message, {
    cause: error,
    retryable: why !== undefined && code !== 'EACCES',
  })
}
