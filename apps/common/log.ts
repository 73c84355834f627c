import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Logger } from 'pino'
import { ProxyError } from '../../lib/core/index.ts'
import { notEmpty, type StringFlag } from './flags.ts'
import { LogFile } from './log-file.ts'
import { logWire } from './wire-log.ts'

export type { Logger } from 'pino'

export const LOG_FLAGS: readonly [StringFlag<'log-level'>, StringFlag<'log-file'>] = [
  {
    name: 'log-level',
    kind: 'string',
    value: 'LEVEL',
    help: 'error, warn, info, debug (also control frames), trace (also all other frames and records, never what is in them) or silent. Default: info.',
  },
  {
    name: 'log-file',
    kind: 'string',
    value: 'FILE',
    help: 'Append the log to this file, as JSON lines. SIGHUP opens it anew.',
  },
]

/** The same for commands whose standard output is for something else. */
export const STDERR_LOG_FLAGS: typeof LOG_FLAGS = [
  {
    name: 'log-level',
    kind: 'string',
    value: 'LEVEL',
    help: 'What is told on standard error: error, warn, info, debug, trace or silent. Default: warn.',
  },
  { name: 'log-file', kind: 'string', value: 'FILE', help: 'Append that to this file instead, as JSON lines.' },
]

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent']

export interface LogOptions {
  'log-level': string | undefined
  'log-file': string | undefined
}

export function checkLogLevel(level: string = 'info'): string {
  if (LEVELS.includes(level)) return level
  throw new ProxyError('PROXY_ERR_USAGE', `--log-level: "${level}" is not one of ${LEVELS.join(', ')}`)
}

/**
 * JSON lines, or something to look at where a person does. Writing is synchronous: the last line counts most. A log that
 * is a file goes on in a new one of the same name after SIGHUP, as whoever rotates logs expects.
 */
export async function createLog(options: LogOptions): Promise<Logger> {
  const level = checkLogLevel(options['log-level'])
  const file = notEmpty(options['log-file'], 'log-file')
  const { pino } = await import('pino')
  const settings = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime }
  let log: Logger
  if (file === undefined && process.stdout.isTTY) {
    const { default: pretty } = await import('pino-pretty')
    const stream = pretty({ colorize: process.env.NO_COLOR === undefined, sync: true, translateTime: 'SYS:HH:MM:ss' })
    log = pino(settings, stream)
  } else {
    log = pino({ ...settings, formatters: { level: (label) => ({ level: label }) } }, openLog(file))
  }
  logWire(log)
  return log
}

function openLog(file: string | undefined): LogFile {
  if (file === undefined) return new LogFile(1)
  try {
    mkdirSync(dirname(file), { recursive: true })
    const opened = new LogFile(file)
    if (process.platform !== 'win32') process.on('SIGHUP', () => opened.reopen())
    return opened
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new ProxyError('PROXY_ERR_LOG', `cannot write the log to ${file}: ${why}`, { cause: error })
  }
}
