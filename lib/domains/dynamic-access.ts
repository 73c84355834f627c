import { createHash, timingSafeEqual } from 'node:crypto'
import { constants, open } from 'node:fs/promises'
import { ProxyError } from '../core/index.ts'
import type { DynamicAccess } from './dynamic-address.ts'
import { shown } from './text.ts'

/** RFC 1929: a length of one byte. With room for the end of the line. */
const LONGEST_PASSWORD = 255
const LONGEST_FILE = LONGEST_PASSWORD + 2
/** So that a pipe answers at once, which is no file. Windows knows neither. */
const READ_AT_ONCE = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)
const OTHERS_MAY_READ = 0o004

interface PasswordFile {
  readonly password: Buffer
  readonly readableByAll: boolean
}

/** Who may use a proxy server: one user, whose password is in a file that may change at any time. */
export class Gate {
  readonly #access: DynamicAccess
  readonly #onWarning: (text: string) => void
  #reading: Promise<PasswordFile> | undefined
  #warned: string | undefined

  private constructor(access: DynamicAccess, onWarning: (text: string) => void) {
    this.#access = access
    this.#onWarning = onWarning
  }

  /** @throws ProxyError PROXY_ERR_LISTEN_FAILED if there is no password to be read now */
  static async open(access: DynamicAccess, onWarning: (text: string) => void = () => {}): Promise<Gate> {
    const { readableByAll } = await readPassword(access.passwordFile)
    if (readableByAll) onWarning(`password_file ${shown(access.passwordFile)} can be read by all users: chmod 600`)
    return new Gate(access, onWarning)
  }

  /** Takes as long whatever is wrong, as far as it is compared here. */
  async admits(user: Uint8Array, password: Uint8Array): Promise<boolean> {
    try {
      const known = await this.#read()
      this.#warned = undefined
      const rightUser = isSame(user, Buffer.from(this.#access.user))
      const rightPassword = isSame(password, known.password)
      return rightUser && rightPassword
    } catch (error) {
      this.#warn(error instanceof Error ? error.message : String(error))
      return false
    }
  }

  /** Many tries at once cost one reading. */
  #read(): Promise<PasswordFile> {
    this.#reading ??= readPassword(this.#access.passwordFile).finally(() => {
      this.#reading = undefined
    })
    return this.#reading
  }

  /** Once: clients try again and again. */
  #warn(text: string): void {
    if (this.#warned !== text) this.#onWarning(text)
    this.#warned = text
  }
}

/** Hashes have one length, and say nothing about how much of a secret is right. */
function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return timingSafeEqual(createHash('sha256').update(one).digest(), createHash('sha256').update(other).digest())
}

async function readPassword(path: string): Promise<PasswordFile> {
  const file = await open(path, READ_AT_ONCE).catch((error: unknown) => {
    throw fileError(path, OPEN_ERRORS[codeOf(error)] ?? `it cannot be opened (${codeOf(error)})`)
  })
  try {
    const stat = await file.stat()
    if (!stat.isFile()) throw fileError(path, 'it is no file')
    const bytes = Buffer.alloc(LONGEST_FILE + 1)
    let length = 0
    for (;;) {
      const { bytesRead } = await file.read(bytes, length, bytes.length - length, length)
      length += bytesRead
      if (bytesRead === 0 || length === bytes.length) break
    }
    const password = withoutLineEnd(bytes.subarray(0, length))
    if (password.length === 0) throw fileError(path, 'it is empty')
    if (password.length > LONGEST_PASSWORD) {
      throw fileError(path, `it is longer than ${LONGEST_PASSWORD} bytes: it has the password, and nothing else`)
    }
    const others = process.platform === 'win32' ? 0 : stat.mode & OTHERS_MAY_READ
    return { password, readableByAll: others !== 0 }
  } catch (error) {
    throw error instanceof ProxyError ? error : fileError(path, `it cannot be read (${codeOf(error)})`)
  } finally {
    await file.close()
  }
}

function withoutLineEnd(bytes: Buffer): Buffer {
  let end = bytes.length
  if (bytes[end - 1] === 0x0a) end--
  if (end < bytes.length && bytes[end - 1] === 0x0d) end--
  return bytes.subarray(0, end)
}

const OPEN_ERRORS: Readonly<Record<string, string>> = {
  ENOENT: 'it does not exist',
  EACCES: 'permission denied',
  EISDIR: 'it is a folder',
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
}

function fileError(path: string, why: string): ProxyError {
  return new ProxyError('PROXY_ERR_LISTEN_FAILED', `password_file ${shown(path)}: ${why}`)
}
