import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

export interface ChildOptions {
  /** Replaces the environment (default: the test's own, without what belongs to the test runner). */
  env?: NodeJS.ProcessEnv
  cwd?: string
  /** Run as this user; only root can. */
  user?: { uid: number; gid: number } | undefined
  /** Standard input; default: nothing (/dev/null). */
  stdin?: number
  /** A file descriptor for standard output; the child then has no `lines` from it. */
  stdout?: number
  /** How to end it when there is no time to wait: a program that has to end others by itself wants SIGTERM. */
  lastSignal?: NodeJS.Signals
  /** A further pipe whose lines are read too, as descriptor 3. */
  third?: boolean
}

export interface Exit {
  status: number | null
  signal: NodeJS.Signals | null
}

/** The environment for a program under test: nothing of the test runner, and no secret of the person who runs it. */
export function cleanEnvironment(more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !/^(NODE_|TEST_|npm_|SYMPORT_|PG)/.test(name))
  return { ...Object.fromEntries(kept), LC_ALL: 'C', ...more }
}

/**
 * A program that runs beside the test: what it prints is kept line by line and can be waited for. It leads a process
 * group of its own, so that ending it ends what it has started, too.
 */
export class Child {
  readonly name: string
  readonly pid: number
  readonly exited: Promise<Exit>
  /** Every line from standard output and standard error, in the order of arrival. */
  readonly lines: string[] = []
  #exit: Exit | undefined
  /** The process itself has ended; others may still write to its output. */
  readonly #gone: Promise<void>
  readonly #process: ChildProcess
  readonly #lastSignal: NodeJS.Signals
  readonly #watchers = new Set<() => void>()

  private constructor(name: string, child: ChildProcess, pid: number, lastSignal: NodeJS.Signals) {
    this.#lastSignal = lastSignal
    this.name = name
    this.#process = child
    this.pid = pid
    for (const stream of child.stdio.slice(1)) {
      if (stream && 'read' in stream) createInterface({ input: stream }).on('line', (line) => this.#add(line))
    }
    this.#gone = new Promise((resolve) => child.once('exit', () => resolve()))
    // 'close', not 'exit': by then every line it printed has been read.
    this.exited = new Promise((resolve) => {
      child.once('close', (status: number | null, signal: NodeJS.Signals | null) => {
        this.#exit = { status, signal }
        resolve(this.#exit)
        for (const wake of this.#watchers) wake()
      })
    })
  }

  static async start(command: string, args: readonly string[], options: ChildOptions = {}): Promise<Child> {
    const { env = cleanEnvironment(), cwd, user, stdin = 'ignore', stdout = 'pipe', third = false } = options
    const stdio: SpawnOptions['stdio'] = [stdin, stdout, 'pipe', ...(third ? (['pipe'] as const) : [])]
    const child = spawn(command, args, { env, stdio, detached: true, ...(cwd ? { cwd } : {}), ...user })
    const name = command.slice(command.lastIndexOf('/') + 1)
    if (child.pid === undefined) {
      const [error] = (await once(child, 'error')) as [Error]
      throw new Error(`cannot start ${command}: ${error.message}`)
    }
    return new Child(name, child, child.pid, options.lastSignal ?? 'SIGKILL')
  }

  get running(): boolean {
    return this.#exit === undefined
  }

  #add(line: string): void {
    this.lines.push(line)
    for (const wake of this.#watchers) wake()
  }

  /** What it printed last, for a message about a failure. */
  tail(count = 40): string {
    return this.lines.slice(-count).join('\n')
  }

  /**
   * The first line that `pick` makes something of, among those from number `from` on (default: all) and those still to
   * come. Fails, with what was printed, when the program ends or the time is over.
   */
  async line<T>(pick: (line: string) => T | undefined, what: string, from = 0, timeoutMs = 20_000): Promise<T> {
    let next = from
    const look = (): T | undefined => {
      while (next < this.lines.length) {
        const found = pick(this.lines[next++] ?? '')
        if (found !== undefined) return found
      }
      return undefined
    }
    return await new Promise<T>((resolve, reject) => {
      const settle = (act: () => void): void => {
        clearTimeout(timer)
        this.#watchers.delete(wake)
        act()
      }
      const wake = (): void => {
        const found = look()
        if (found !== undefined) settle(() => resolve(found))
        else if (this.#exit !== undefined) settle(() => reject(this.#failure(`ended before it printed ${what}`)))
      }
      const timer = setTimeout(() => {
        settle(() => reject(this.#failure(`has not printed ${what} in ${timeoutMs} ms`)))
      }, timeoutMs)
      this.#watchers.add(wake)
      wake()
    })
  }

  #failure(what: string): Error {
    return new Error(`${this.name} (pid ${this.pid}) ${what}; it printed:\n${this.tail()}`)
  }

  /** Sends a signal to this one process. */
  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal)
  }

  /** Ends it; with SIGKILL after `graceMs`, and at once what it has left behind in its group. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', graceMs = 10_000): Promise<Exit> {
    if (this.#exit !== undefined) return this.#exit
    this.signal(signal)
    const late = setTimeout(() => this.killGroup(), graceMs)
    await this.#gone
    clearTimeout(late)
    this.killGroup()
    // What has left the group may still hold the output open: it is not waited for.
    const held = setTimeout(() => {
      for (const stream of this.#process.stdio) stream?.destroy()
    }, 1_000)
    const exit = await this.exited
    clearTimeout(held)
    return exit
  }

  /** Without waiting: for the moment in which the test process itself ends. */
  abandon(): void {
    this.killGroup(this.#lastSignal)
  }

  /** At once: this process and all of its group. */
  killGroup(signal: NodeJS.Signals = 'SIGKILL'): void {
    try {
      process.kill(-this.pid, signal)
    } catch {
      // Nobody is left in the group.
    }
  }
}
