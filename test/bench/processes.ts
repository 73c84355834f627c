import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const KEPT_LINES = 500
const STOP_AGAIN_MS = 3_000
const STOP_HARD_MS = 8_000

/** One started program. Its lines (both streams) are read all the time, so it never stalls on a full pipe. */
export class Running {
  readonly name: string
  readonly pid: number
  readonly exited: Promise<number | null>
  readonly #child: ChildProcess
  readonly #unread: string[] = []
  readonly #tail: string[] = []
  readonly #hear: ((line: string) => void) | undefined
  #wake: (() => void) | undefined
  #ended = false

  constructor(name: string, child: ChildProcess, onLine?: (line: string) => void) {
    this.name = name
    this.#hear = onLine
    this.#child = child
    this.pid = child.pid ?? 0
    this.exited = new Promise((resolve) => {
      const end = (code: number | null): void => {
        this.#ended = true
        this.#wake?.()
        resolve(code)
      }
      child.once('error', (error) => {
        this.#tail.push(error.message)
        end(null)
      })
      child.once('close', end)
    })
    for (const stream of [child.stdout, child.stderr]) {
      if (stream) createInterface({ input: stream }).on('line', (line) => this.#onLine(line))
    }
  }

  get ended(): boolean {
    return this.#ended
  }

  /** The last lines it wrote, for error messages. */
  get lastWords(): string {
    return this.#tail.slice(-3).join(' | ') || 'it said nothing'
  }

  #onLine(line: string): void {
    this.#hear?.(line)
    this.#unread.push(line)
    if (this.#unread.length > KEPT_LINES) this.#unread.shift()
    this.#tail.push(line)
    if (this.#tail.length > 10) this.#tail.shift()
    this.#wake?.()
  }

  /** Reads on, line by line, to the first one for which `match` answers something. */
  async waitFor<T>(what: string, match: (line: string) => T | undefined, timeoutMs = 15_000): Promise<T> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      for (let line = this.#unread.shift(); line !== undefined; line = this.#unread.shift()) {
        const found = match(line)
        if (found !== undefined) return found
      }
      if (this.#ended) throw new Error(`${this.name} ended before "${what}": ${this.lastWords}`)
      const left = deadline - performance.now()
      if (left <= 0) throw new Error(`${this.name} did not say "${what}" in ${timeoutMs / 1000} s: ${this.lastWords}`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      this.#wake = undefined
    }
  }

  /** SIGTERM, once more after 3 s (a second one ends symport's drain), SIGKILL after 8 s. */
  async stop(): Promise<void> {
    if (this.#ended) return
    this.signal('SIGTERM')
    const again = setTimeout(() => this.signal('SIGTERM'), STOP_AGAIN_MS)
    const hard = setTimeout(() => this.signal('SIGKILL'), STOP_HARD_MS)
    await this.exited
    clearTimeout(again)
    clearTimeout(hard)
  }

  /** To the whole group it leads, so that workers it started end too. */
  signal(signal: NodeJS.Signals): void {
    if (this.#ended || this.pid === 0) return
    try {
      if (process.platform === 'win32') this.#child.kill(signal)
      else process.kill(-this.pid, signal)
    } catch {
      // Already gone: its `close` is on the way.
    }
  }
}

/** Everything a run starts and every folder it makes, so that all of it ends and goes, however the run ends. */
export class Processes {
  readonly #running = new Set<Running>()
  readonly #folders = new Set<string>()
  readonly #borrowed = new Set<string>()
  #closed = false

  /** `attended`: its stdin stays open for as long as this process lives, for programs that end by its end. */
  start(
    command: string,
    args: readonly string[],
    name: string,
    o: { onLine?: (line: string) => void; attended?: boolean } = {},
  ): Running {
    if (this.#closed) throw new Error('interrupted')
    const { SYMPORT_UUID: _secret, NODE_OPTIONS: _options, ...env } = process.env
    // A group of its own: Ctrl-C then reaches only the bench, which ends things in order.
    const child = spawn(command, args, {
      env,
      detached: process.platform !== 'win32',
      stdio: [o.attended ? 'pipe' : 'ignore', 'pipe', 'pipe'],
    })
    const running = new Running(name, child, o.onLine)
    this.#running.add(running)
    void running.exited.then(() => this.#running.delete(running))
    return running
  }

  /** Runs a program to its end and gives back all that it wrote. */
  async run(command: string, args: readonly string[], name: string, timeoutMs = 60_000): Promise<string> {
    const lines: string[] = []
    const running = this.start(command, args, name, { onLine: (line) => lines.push(line) })
    const deadline = setTimeout(() => running.signal('SIGKILL'), timeoutMs)
    const code = await running.exited
    clearTimeout(deadline)
    if (code !== 0) throw new Error(`${name} failed (${code ?? 'killed'}): ${running.lastWords}`)
    return lines.join('\n')
  }

  folder(): string {
    const folder = mkdtempSync(join(tmpdir(), 'symport-bench-'))
    this.#folders.add(folder)
    return folder
  }

  /** Also removes this folder at the end, provided that it is empty. */
  removeLater(folder: string): void {
    this.#borrowed.add(folder)
  }

  async close(): Promise<void> {
    this.#closed = true
    // Clients before what they are clients of.
    for (const running of [...this.#running].reverse()) await running.stop()
    this.#removeFolders()
  }

  /** The last resort, for a process that is about to exit and can wait for nothing. */
  killNow(): void {
    this.#closed = true
    for (const running of this.#running) running.signal('SIGKILL')
    this.#removeFolders()
  }

  #removeFolders(): void {
    for (const folder of this.#folders) rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
    this.#folders.clear()
    for (const folder of this.#borrowed) {
      try {
        rmdirSync(folder)
      } catch {
        // Somebody else uses it by now.
      }
    }
    this.#borrowed.clear()
  }
}
