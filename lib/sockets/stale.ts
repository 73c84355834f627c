import { lstat, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { ProxyError } from '../core/index.ts'

/** Removes a socket that nobody listens on any more; anything else at the path stays. */
export async function removeStale(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined)
  if (!found) return
  const taken = (why: string): ProxyError =>
    new ProxyError('PROXY_ERR_LISTEN_FAILED', `cannot listen on ${path}: ${why}`)
  if (!found.isSocket()) throw taken('there is a file already, and it is not a socket')
  const alive = await new Promise<boolean>((resolve) => {
    const socket = connect({ path }, () => resolve(true))
    // Only a refusal says that nobody is there: a full backlog, say, is another answer.
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'))
    socket.on('connect', () => socket.destroy())
  })
  if (alive) throw taken('another program listens there')
  await rm(path, { force: true })
}
