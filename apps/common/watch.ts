import { stripVTControlCharacters } from 'node:util'
import { ProxyError } from '../../lib/core/index.ts'
import { terminal } from './operator.ts'
import { cutTo, type TableOptions, textWidth } from './table.ts'

/** Lines as they are, or for whatever size the terminal has by then. */
export type Frame = readonly string[] | ((options: TableOptions) => readonly string[])

export interface WatchOptions {
  /** In ms. */
  readonly every: number
  /** One line after the other, instead of the screen. */
  readonly json: boolean
  frame(): Promise<Frame>
}

const HIDE = '\x1b[?25l'
const SHOW = '\x1b[?25h'
const HOME = '\x1b[H'
const CLEAR = '\x1b[2J'
const CLEAR_LINE = '\x1b[K'
const CLEAR_BELOW = '\x1b[J'

/**
 * Shows a frame again and again, on a terminal in place, until SIGINT or SIGTERM, or until nobody reads any more. Answers
 * the exit status. A server that goes away is waited for; that it is not there at first is an error.
 */
export async function watch({ every, json, frame }: WatchOptions): Promise<number> {
  const stop = new AbortController()
  const end = (): void => stop.abort()
  process.on('SIGINT', end)
  process.on('SIGTERM', end)
  process.stdout.on('error', end)
  const onScreen = !json
  let last: Frame = await frame()
  const show = (): void => {
    if (stop.signal.aborted) return
    process.stdout.write(onScreen ? screen(last) : `${lines(last).join('\n')}\n`)
  }
  if (onScreen) process.stdout.write(`${HIDE}${CLEAR}`)
  process.stdout.on('resize', show)
  try {
    while (!stop.signal.aborted) {
      show()
      await pause(every, stop.signal)
      if (stop.signal.aborted) break
      try {
        last = await frame()
      } catch (error) {
        if (!(error instanceof ProxyError)) throw error
        if (!onScreen) throw error
        last = [`${error.message}; trying again`]
      }
    }
  } finally {
    process.off('SIGINT', end)
    process.off('SIGTERM', end)
    process.stdout.off('error', end)
    process.stdout.off('resize', show)
    if (onScreen) process.stdout.write(`${SHOW}\n`)
  }
  return 0
}

/** The frame over the one before, cut to the size of the terminal: a line that wraps would move all others. */
function screen(frame: Frame): string {
  const { width } = terminal()
  const room = Math.max(2, (process.stdout.rows || 24) - 1)
  const all = lines(frame)
  const hidden = all.length - room
  const shown = hidden > 0 ? [...all.slice(0, room - 1), `… ${hidden + 1} lines more`] : all
  return `${HOME}${shown.map((line) => `${fit(line, width)}${CLEAR_LINE}`).join('\n')}${CLEAR_BELOW}`
}

function lines(frame: Frame): readonly string[] {
  return typeof frame === 'function' ? frame(terminal()) : frame
}

/** Colours have no width, and are left out where a line has to be cut. */
function fit(line: string, width: number): string {
  const plain = stripVTControlCharacters(line)
  return textWidth(plain) <= width ? line : cutTo(plain, width)
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
    if (signal.aborted) done()
  })
}
