import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, link, lstat, mkdir, open, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, posix, win32 } from 'node:path'
import { ProxyError } from '../core/errors.ts'

export interface Surroundings {
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly platform?: NodeJS.Platform
  /** The user id; undefined on Windows. */
  readonly uid?: number | undefined
  readonly home?: string
}

/** Where state is kept if nobody says otherwise: see XDG Base Directory Specification, `XDG_STATE_HOME`. */
export function defaultStateFolder(surroundings: Surroundings = {}): string {
  const { env = process.env, platform = process.platform, uid = process.getuid?.(), home = homedir() } = surroundings
  if (platform === 'win32') return win32.join(env.LOCALAPPDATA || win32.join(home, 'AppData', 'Local'), 'symport')
  // A relative path there is to be ignored, says the specification.
  const xdg = env.XDG_STATE_HOME
  if (xdg !== undefined && posix.isAbsolute(xdg)) return posix.join(xdg, 'symport')
  return uid === 0 ? '/var/lib/symport' : posix.join(home, '.local', 'state', 'symport')
}

export interface StateFile {
  readonly text: string
  /** Whether other users could read it until now. It has been made private; a secret may have been seen. */
  readonly exposed: boolean
}

const FOLDER_MODE = 0o700
const FILE_MODE = 0o600
const OTHERS = 0o077
// Keys and secrets are small; anything else under their name was not written here.
const FILE_SIZE = 1024 * 1024

/**
 * A folder of small files that only its owner may read. It is made (mode 700) with the first file that is written, so
 * looking for one leaves no trace.
 */
export class StateFolder {
  readonly path: string

  constructor(path: string) {
    this.path = path
  }

  /** The path of a file in it, for messages. */
  file(name: string): string {
    return join(this.path, name)
  }

  /**
   * What a file holds, or undefined if there is none.
   *
   * @throws ProxyError PROXY_ERR_STATE
   */
  async read(name: string, largest: number = FILE_SIZE): Promise<StateFile | undefined> {
    const path = this.file(name)
    let handle: FileHandle | undefined
    try {
      // Without waiting for whoever writes into it, if it is a pipe.
      handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
      const stat = await handle.stat()
      const { mode, size } = stat
      const kind = stat.isDirectory() ? 'a folder' : 'not a file'
      if (!stat.isFile()) throw new ProxyError('PROXY_ERR_STATE', `cannot read ${path}: it is ${kind}`)
      if (size > largest) throw new ProxyError('PROXY_ERR_STATE', `cannot read ${path}: it is too large`)
      const exposed = process.platform !== 'win32' && (mode & OTHERS) !== 0
      // Somebody else's file cannot be changed, and is still the one to use. What a link leads to is not ours to change.
      if (exposed && !(await lstat(path)).isSymbolicLink()) await handle.chmod(FILE_MODE).catch(() => undefined)
      return { text: await handle.readFile('utf8'), exposed }
    } catch (error) {
      if (errno(error) === 'ENOENT') return undefined
      throw stateError('read', path, error)
    } finally {
      await handle?.close()
    }
  }

  /**
   * Puts a file in place, mode 600: after a crash there is the old one or the new one, never half of one.
   *
   * @throws ProxyError PROXY_ERR_STATE
   */
  async write(name: string, text: string): Promise<void> {
    await this.#place(name, text, (temporary, path) => rename(temporary, path))
  }

  /**
   * As write, but only if there is no such file yet. Of several processes that try at once one wins.
   *
   * @returns whether it was this one
   * @throws ProxyError PROXY_ERR_STATE
   */
  async create(name: string, text: string): Promise<boolean> {
    let created = true
    await this.#place(name, text, async (temporary, path) => {
      try {
        // Fails if the name is taken, and the file is whole as soon as it has the name.
        await link(temporary, path)
      } catch (error) {
        if (errno(error) === 'EEXIST') created = false
        else if (!NO_LINKS.has(errno(error) ?? '')) throw error
        else created = await createUnlinked(path, text)
      }
      await rm(temporary, { force: true })
    })
    return created
  }

  async #place(name: string, text: string, put: (temporary: string, path: string) => Promise<void>): Promise<void> {
    const path = this.file(name)
    // In the same folder: a rename from another one may cross file systems.
    const temporary = this.file(`.${name}.${randomBytes(6).toString('hex')}.tmp`)
    try {
      await mkdir(this.path, { recursive: true, mode: FOLDER_MODE })
      try {
        await writeNew(temporary, text)
        await put(temporary, path)
      } catch (error) {
        await rm(temporary, { force: true }).catch(() => undefined)
        throw error
      }
      await syncFolder(this.path)
    } catch (error) {
      throw stateError('write', path, error)
    }
  }
}

const REASONS: ReadonlyMap<string, string> = new Map([
  ['ENOSPC', 'no space left'],
  ['EDQUOT', 'no space left in your quota'],
  ['EACCES', 'permission denied (--state takes another folder)'],
  ['EPERM', 'permission denied (--state takes another folder)'],
  ['EROFS', 'the file system is read-only (--state takes another folder)'],
  ['ENOTDIR', 'a part of this path is a file (--state takes another folder)'],
  ['EEXIST', 'a part of this path is a file (--state takes another folder)'],
  ['EISDIR', 'it is a folder'],
  ['ENAMETOOLONG', 'the path is too long'],
  ['EMFILE', 'too many open files'],
  ['EIO', 'the disk reports an error'],
])

/** The error that a person sees where a file of the state folder could not be read or written. */
export function stateError(action: 'read' | 'write', path: string, cause: unknown): ProxyError {
  if (cause instanceof ProxyError) return cause
  const code = errno(cause)
  const reason = REASONS.get(code ?? '') ?? code ?? String(cause)
  return new ProxyError('PROXY_ERR_STATE', `cannot ${action} ${path}: ${reason}`, { cause })
}

// What link() says on file systems that have no hard links (FAT, some network and container mounts).
const NO_LINKS: ReadonlySet<string> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK', 'EINVAL'])

async function createUnlinked(path: string, text: string): Promise<boolean> {
  try {
    await writeNew(path, text)
    return true
  } catch (error) {
    if (errno(error) === 'EEXIST') return false
    throw error
  }
}

async function writeNew(path: string, text: string): Promise<void> {
  const handle = await open(path, 'wx', FILE_MODE)
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** So that the new name survives a power cut too; where folders cannot be synced (Windows), without. */
async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await open(path, 'r').catch(() => undefined)
  await handle?.sync().catch(() => undefined)
  await handle?.close()
}

function errno(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}
