import { type FileHandle, mkdir, open, rename } from 'node:fs/promises'
import { ProxyError } from '../core/errors.ts'
import type { AuditEntry, MappingRequest } from '../hub/operations.ts'
import { type StateFolder, stateError } from '../store/state-folder.ts'
import type { AuditLine } from './schemas.ts'

const FILE = 'audit.log'
const OLD_FILE = 'audit.log.1'
const LARGEST = 10 * 1024 * 1024
/** Some thousand entries. */
const READ_BACK = 1024 * 1024
const MOST_WAITING = 10_000
const SUBJECT_LENGTH = 200

/**
 * What operators changed: JSON lines in the state folder, mode 600, at most 20 MiB: at 10 MiB the file becomes
 * audit.log.1, and the one before that is gone.
 */
export class AuditLog {
  readonly #folder: StateFolder
  readonly #largest: number
  #waiting: string[] = []
  #writing: Promise<void> | undefined

  constructor(folder: StateFolder, options: { largest?: number | undefined } = {}) {
    this.#folder = folder
    this.#largest = options.largest ?? LARGEST
  }

  /**
   * Resolves when the entry is in the file.
   *
   * @throws ProxyError PROXY_ERR_STATE
   */
  async add(entry: Omit<AuditEntry, 'at'>): Promise<void> {
    if (this.#waiting.length >= MOST_WAITING) {
      throw new ProxyError('PROXY_ERR_STATE', `${this.#folder.file(FILE)}: too many entries wait to be written`)
    }
    const line: AuditEntry = { at: new Date().toISOString(), ...entry, subject: entry.subject.slice(0, SUBJECT_LENGTH) }
    this.#waiting.push(`${JSON.stringify(line)}\n`)
    // What is being written now may lack this entry.
    await this.#writing?.catch(() => undefined)
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined
    })
    await this.#writing
  }

  /**
   * Does a change and writes it down, whatever comes of it. `onError` hears of a log that cannot be written: the change is
   * made or not by then, and that is no reason to say otherwise.
   */
  async record<T>(
    entry: Pick<AuditEntry, 'by' | 'action' | 'subject'>,
    act: () => Promise<T>,
    onError: (error: ProxyError) => void,
  ): Promise<T> {
    let error: ProxyError | undefined
    try {
      return await act()
    } catch (thrown) {
      error = ProxyError.from(thrown, 'PROXY_ERR_INTERNAL')
      throw thrown
    } finally {
      await this.add({ ...entry, ...(error ? { error: error.code } : {}) }).catch((problem) =>
        onError(ProxyError.from(problem, 'PROXY_ERR_STATE')),
      )
    }
  }

  /** The newest entries, the newest first. Lines that are damaged are left out. */
  async read(limit = 100): Promise<AuditLine[]> {
    // A start writes at most.
    const [{ safeParse }, { auditEntry }] = await Promise.all([import('valibot'), import('./schemas.ts')])
    const parse = (line: string): AuditLine | undefined => {
      const result = safeParse(auditEntry, toJson(line))
      return result.success ? result.output : undefined
    }
    const entries: AuditLine[] = []
    for (const name of [FILE, OLD_FILE]) {
      if (entries.length >= limit) break
      const lines = (await this.#tail(name)).split('\n').reverse()
      for (const line of lines) {
        const entry = entries.length < limit ? parse(line) : undefined
        if (entry) entries.push(entry)
      }
    }
    return entries
  }

  async #write(): Promise<void> {
    const text = this.#waiting.join('')
    this.#waiting = []
    const path = this.#folder.file(FILE)
    let handle: FileHandle | undefined
    try {
      await mkdir(this.#folder.path, { recursive: true, mode: 0o700 })
      handle = await open(path, 'a', 0o600)
      const { size } = await handle.stat()
      if (size > 0 && size + Buffer.byteLength(text) > this.#largest) {
        await handle.close()
        await rename(path, this.#folder.file(OLD_FILE))
        handle = await open(path, 'a', 0o600)
      }
      await handle.appendFile(text)
    } catch (error) {
      throw stateError('write', path, error)
    } finally {
      await handle?.close()
    }
  }

  async #tail(name: string): Promise<string> {
    let handle: FileHandle | undefined
    try {
      handle = await open(this.#folder.file(name), 'r')
      const { size } = await handle.stat()
      const start = Math.max(0, size - READ_BACK)
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(size - start), 0, size - start, start)
      return buffer.toString('utf8', 0, bytesRead)
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return ''
      throw stateError('read', this.#folder.file(name), error)
    } finally {
      await handle?.close()
    }
  }
}

/** What a mapping is called before it has an id. */
export function subjectOf({ listen }: MappingRequest): string {
  return typeof listen === 'string' ? listen : `${listen.Domain}://${listen.Addr}`
}

function toJson(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}
