import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { Child, type ChildOptions } from './child.ts'

export interface RunOptions extends Omit<ChildOptions, 'stdin' | 'stdout'> {
  /** The file that is its standard input. */
  from?: string
  /** The file that takes its standard output. */
  to?: string
  timeoutMs?: number
}

export interface RunResult {
  /** The exit status; null when it had to be ended, or a signal ended it. */
  status: number | null
  /** Standard output (unless it went to a file) and standard error. */
  output: string
}

/**
 * All that one test starts and makes: programs, a folder, whatever must be undone. It is undone in reverse order when the
 * test ends, however that happens, and programs are ended even when the test process is.
 */
export class Stage {
  /** A new folder directly under the system's folder for temporary files: short enough for a Unix socket's path. */
  readonly folder: string
  readonly #children = new Set<Child>()
  readonly #undo: (() => unknown)[] = []
  #closed: Promise<void> | undefined

  constructor(t: TestContext) {
    this.folder = mkdtempSync(join(tmpdir(), 'symport-'))
    const atExit = (): void => {
      for (const child of this.#children) child.abandon()
      rmSync(this.folder, { recursive: true, force: true })
    }
    const atSignal = (): void => {
      // The test runner may be gone already, and a report that cannot be delivered must not end this process early.
      for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
      void this.#close().finally(() => process.exit(130))
    }
    process.on('exit', atExit)
    process.on('SIGINT', atSignal)
    process.on('SIGTERM', atSignal)
    this.defer(() => {
      process.off('exit', atExit)
      process.off('SIGINT', atSignal)
      process.off('SIGTERM', atSignal)
    })
    this.defer(() => rmSync(this.folder, { recursive: true, force: true }))
    t.after(() => this.#close())
  }

  path(...names: string[]): string {
    return join(this.folder, ...names)
  }

  /** Runs `undo` when the test has ended, before everything that was deferred or started earlier. */
  defer(undo: () => unknown): void {
    this.#undo.push(undo)
  }

  /** Starts a program that runs until the test ends. `graceMs`: how long it may take to stop when asked to. */
  async start(
    command: string,
    args: readonly string[],
    options: ChildOptions & { graceMs?: number; stopSignal?: NodeJS.Signals } = {},
  ): Promise<Child> {
    if (this.#closed) throw new Error(`${command} is not started: the test has ended`)
    const child = await this.#spawn(command, args, options)
    this.defer(async () => {
      await child.stop(options.stopSignal ?? 'SIGTERM', options.graceMs ?? 5_000)
      child.killGroup()
      this.#children.delete(child)
    })
    return child
  }

  /** Runs a program to its end and gives its status, whatever that is. */
  async run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const { from, to, timeoutMs = 60_000, ...rest } = options
    const stdin = from === undefined ? undefined : openSync(from, 'r')
    const stdout = to === undefined ? undefined : openSync(to, 'w')
    try {
      const child = await this.#spawn(command, args, {
        ...rest,
        ...(stdin === undefined ? {} : { stdin }),
        ...(stdout === undefined ? {} : { stdout }),
      })
      const timer = setTimeout(() => child.killGroup(), timeoutMs)
      const { status } = await child.exited
      clearTimeout(timer)
      this.#children.delete(child)
      return { status, output: child.lines.join('\n') }
    } finally {
      if (stdin !== undefined) closeSync(stdin)
      if (stdout !== undefined) closeSync(stdout)
    }
  }

  /** Runs a program that must succeed, and gives what it printed. */
  async must(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
    const { status, output } = await this.run(command, args, options)
    if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status ?? 'a signal'}:\n${output}`)
    return output
  }

  async #spawn(command: string, args: readonly string[], options: ChildOptions): Promise<Child> {
    const child = await Child.start(command, args, options)
    this.#children.add(child)
    return child
  }

  /** Once, however many reasons there are to end. */
  #close(): Promise<void> {
    this.#closed ??= this.#undoAll()
    return this.#closed
  }

  async #undoAll(): Promise<void> {
    const errors: unknown[] = []
    // One at a time: what is starting at this moment still adds itself.
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) {
      try {
        await undo()
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, 'the test could not be cleaned up')
  }
}
