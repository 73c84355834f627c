import { createHash, randomBytes } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { StateFolder } from '../store/state-folder.ts'

/** The file of the token for the API over TCP, in the state folder. */
export const TOKEN_FILE = 'admin-token'

/** What a Unix socket's path may have: sun_path less its zero (unix(7)). */
export const LONGEST_PATH = 107

/** In ms. */
const OLD = 10_000

const PIPES = '\\\\.\\pipe\\'

/** Where the server of a state folder is asked and told things: a Unix socket, on Windows a named pipe. */
export function adminSocket(folder: StateFolder, platform: NodeJS.Platform = process.platform): string {
  const path = resolve(folder.file('admin.sock'))
  return platform === 'win32' ? `${PIPES}symport-${digest(path)}` : path
}

/** The same for a process that publishes something. Several of them share a state folder: `name` tells them apart. */
export function publishSocket(
  folder: StateFolder,
  name: string = randomBytes(4).toString('hex'),
  platform: NodeJS.Platform = process.platform,
): string {
  const path = resolve(folder.file(`publish-${name}.sock`))
  return platform === 'win32' ? `${PIPES}symport-${digest(resolve(folder.path))}-${name}` : path
}

/** All of these that there are. Some may be left over from processes that were killed. */
export async function publishSockets(
  folder: StateFolder,
  platform: NodeJS.Platform = process.platform,
): Promise<string[]> {
  const isPipe = platform === 'win32'
  const names = await readdir(isPipe ? PIPES : folder.path).catch(() => [])
  const [start, end] = isPipe ? [`symport-${digest(resolve(folder.path))}-`, ''] : ['publish-', '.sock']
  return names.flatMap((file) => {
    if (!file.startsWith(start) || !file.endsWith(end)) return []
    const name = file.slice(start.length, file.length - end.length)
    return /^[0-9a-f]{8}$/.test(name) ? [publishSocket(folder, name, platform)] : []
  })
}

/** Removes those that nobody listens on any more. One that was made just now may be about to be listened on. */
export async function removeOldSockets(folder: StateFolder): Promise<void> {
  if (process.platform === 'win32') return
  const [{ stat }, { removeStale }] = await Promise.all([import('node:fs/promises'), import('../sockets/stale.ts')])
  for (const path of await publishSockets(folder)) {
    const made = await stat(path).catch(() => undefined)
    if (made && Date.now() - made.mtimeMs > OLD) await removeStale(path).catch(() => {})
  }
}

/** Pipes have no folders; names have no case on Windows. */
function digest(path: string): string {
  return createHash('sha256').update(path.toLowerCase()).digest('hex').slice(0, 32)
}
