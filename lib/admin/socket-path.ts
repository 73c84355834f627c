import { createHash } from 'node:crypto'
import { resolve } from 'node:path'
import type { StateFolder } from '../store/state-folder.ts'

/** The file of the token for the API over TCP, in the state folder. */
export const TOKEN_FILE = 'admin-token'

/** What a Unix socket's path may have: sun_path less its zero (unix(7)). */
export const LONGEST_PATH = 107

/** Where the server of a state folder is asked and told things: a Unix socket, on Windows a named pipe. */
export function adminSocket(folder: StateFolder, platform: NodeJS.Platform = process.platform): string {
  const path = resolve(folder.file('admin.sock'))
  if (platform !== 'win32') return path
  // Pipes have no folders; names have no case on Windows.
  return `\\\\.\\pipe\\symport-${createHash('sha256').update(path.toLowerCase()).digest('hex').slice(0, 32)}`
}
