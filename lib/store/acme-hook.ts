import type { ChildProcess } from 'node:child_process'
import { AcmeFailure, onOneLine } from './acme-problems.ts'

/** Of what a program prints the end is kept, in characters. */
const KEPT = 500
const GRACE = 2000
/** How long a program that has ended is read on, in ms: what it has started may hold its output open. */
const REST = 200

export interface HookOptions {
  /** How long it may take, in ms. */
  readonly deadline: number
  /** Ends it. */
  readonly signal: AbortSignal
  /** Between being asked to end and being ended, in ms. Default 2,000. */
  readonly grace?: number | undefined
}

/**
 * Runs a program of the operator's, without a shell, to its end. It has our environment but for our secret, nothing to read,
 * and what it prints is told if it fails. What it has started itself ends with it if it has to be ended.
 *
 * @throws AcmeFailure unless it ends with 0 in time
 */
export async function runHook(
  program: string,
  args: readonly string[],
  { deadline, signal, grace = GRACE }: HookOptions,
): Promise<void> {
  const called = `the hook ${program} ${args[0] ?? ''}`
  if (signal.aborted) throw failed(`${called} is not run any more`)
  const { spawn } = await import('node:child_process')
  const { SYMPORT_UUID: _, ...env } = process.env
  // A group of its own, so that all of it can be ended, and Ctrl-C leaves it to us.
  const own = process.platform !== 'win32'
  let child: ChildProcess
  try {
    child = spawn(program, args, { env, detached: own, windowsHide: true, stdio: ['ignore', 'pipe', 'pipe'] })
  } catch (error) {
    throw failed(cannotRun(program, error), error)
  }
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text.slice(-KEPT)).slice(-KEPT)
    })
  }
  let cut: 'late' | 'given up' | undefined
  let last: NodeJS.Timeout | undefined
  const end = (why: typeof cut): void => {
    if (cut) return
    cut = why
    kill(child, own, 'SIGTERM')
    last = setTimeout(() => kill(child, own, 'SIGKILL'), grace)
  }
  const timer = setTimeout(() => end('late'), deadline)
  const onAbort = (): void => end('given up')
  signal.addEventListener('abort', onAbort)
  try {
    const { status, error } = await endOf(child)
    if (error) throw failed(cannotRun(program, error), error)
    const text = onOneLine(said)
    const says = text === '' ? '' : ` (it says: ${text})`
    if (cut === 'late') throw failed(`${called} has not ended within ${Math.round(deadline / 1000)} s${says}`)
    if (cut) throw failed(`${called} was given up${says}`)
    if (status !== 0) throw failed(`${called} ended with ${status}${says}`)
  } finally {
    clearTimeout(timer)
    clearTimeout(last)
    signal.removeEventListener('abort', onAbort)
    // What has not ended by being asked to is not left behind.
    if (cut) kill(child, own, 'SIGKILL')
  }
}

/** When it has ended, and what it printed has been read. */
async function endOf(child: ChildProcess): Promise<{ status?: number | string; error?: Error }> {
  return await new Promise((resolve) => {
    child.on('error', (error) => resolve({ error }))
    child.once('exit', (code, signal) => {
      const status = code ?? signal ?? 'a signal'
      const rest = setTimeout(() => {
        child.stdout?.destroy()
        child.stderr?.destroy()
      }, REST)
      child.once('close', () => {
        clearTimeout(rest)
        resolve({ status })
      })
    })
  })
}

function kill(child: ChildProcess, group: boolean, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return
  try {
    if (group) process.kill(-child.pid, signal)
    else child.kill(signal)
  } catch {
    // It has ended, with all that it has started.
  }
}

function cannotRun(program: string, error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
  const known: Record<string, string> = {
    ENOENT: 'there is no such file, or not what its first line says that it is for',
    EACCES: 'it is not executable (chmod +x)',
  }
  return `the hook ${program} cannot be run: ${known[code] ?? code}`
}

function failed(message: string, cause?: unknown): AcmeFailure {
  return new AcmeFailure(message, { scope: 'name', cause })
}
