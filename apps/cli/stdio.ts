import { closeSync, fstatSync, openSync } from 'node:fs'
import { devNull } from 'node:os'
import { Duplex } from 'node:stream'
import { isatty } from 'node:tty'
import { join, type Listener, linkFrom, ProxyError, type SubConnection } from '../../lib/core/index.ts'
import type { Domain } from '../../lib/domains/domain.ts'

const OUTPUT = 1

/** Standard input and output, as one stream with half-close. */
export class Stdio extends Duplex {
  readonly #input: NodeJS.ReadStream = process.stdin
  readonly #output: NodeJS.WriteStream = process.stdout
  #failure: ProxyError | undefined

  constructor() {
    super({ allowHalfOpen: true })
    this.#output.on('error', (error) => this.destroy(this.#failed('write to standard output', error)))
  }

  /** Why it cannot be read, or written to, where it is not just that nobody reads any more. */
  get failure(): ProxyError | undefined {
    return this.#failure
  }

  override _construct(callback: () => void): void {
    const input = this.#input
    input.on('data', (chunk) => {
      if (!this.push(chunk)) input.pause()
    })
    input.on('end', () => this.push(null))
    input.on('error', (error) => this.destroy(this.#failed('read standard input', error)))
    input.pause()
    callback()
  }

  override _read(): void {
    this.#input.resume()
  }

  override _write(chunk: Uint8Array, _encoding: string, callback: (error?: Error | null) => void): void {
    this.#output.write(chunk, (error) => callback(error && this.#failed('write to standard output', error)))
  }

  override _final(callback: (error?: Error | null) => void): void {
    try {
      this.#endOutput(callback)
    } catch (error) {
      callback(error instanceof Error ? error : new Error(String(error)))
    }
  }

  /** Node.js itself never closes standard output, and who reads it waits for the end. */
  #endOutput(callback: () => void): void {
    if (process.platform === 'win32' || fstatSync(OUTPUT).isSocket()) {
      this.#output.end(callback)
      return
    }
    if (!isatty(OUTPUT)) {
      closeSync(OUTPUT)
      // So that the next link to the server does not become standard output.
      openSync(devNull, 'w')
    }
    callback()
  }

  #failed(what: string, error: Error): Error {
    const code = 'code' in error ? String(error.code) : error.message
    if (code === 'EPIPE') return error
    this.#failure ??= new ProxyError('PROXY_ERR_RESET', `cannot ${what}: ${code}`, { cause: error })
    return this.#failure
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#input.destroy()
    callback(error)
  }
}

/** Domain `stdio`: one connection comes in, when it may. */
export interface StdioDomain extends Domain {
  /** Its sub-connection; rejects if there can be none. */
  readonly opened: Promise<SubConnection>
}

export function stdio(stream: Stdio, ready: Promise<unknown>): StdioDomain {
  let open: (opened: Promise<SubConnection>) => void = () => {}
  const opened = new Promise<SubConnection>((resolve) => {
    open = resolve
  })
  opened.then(
    (sub) => join(sub, linkFrom(stream)),
    () => stream.destroy(),
  )
  return {
    name: 'stdio',
    opened,
    async listen(at, context): Promise<Listener> {
      open(ready.then(() => context.open({ from: 'standard input' })))
      const close = async (): Promise<void> => {}
      return { bound: at, close, [Symbol.asyncDispose]: close }
    },
  }
}
