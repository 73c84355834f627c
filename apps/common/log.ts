import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { type Logger, pino } from 'pino'
import { ProxyError } from '../../lib/core/index.ts'
import { notEmpty, type StringFlag } from './flags.ts'

export type { Logger } from 'pino'

export const LOG_FLAGS: readonly [StringFlag<'log-level'>, StringFlag<'log-file'>] = [
  {
    name: 'log-level',
    kind: 'string',
    value: 'LEVEL',
    help: 'trace, debug, info, warn, error or silent. Default: info.',
  },
  { name: 'log-file', kind: 'string', value: 'FILE', help: 'Append the log to this file, as JSON lines.' },
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

/** JSON lines, or something to look at where a person does. Writing is synchronous: the last line counts most. */
export async function createLog(options: LogOptions): Promise<Logger> {
  const level = checkLogLevel(options['log-level'])
  const file = notEmpty(options['log-file'], 'log-file')
  const settings = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime }
  if (file === undefined && process.stdout.isTTY) {
    const { default: pretty } = await import('pino-pretty')
    const stream = pretty({ colorize: process.env.NO_COLOR === undefined, sync: true, translateTime: 'SYS:HH:MM:ss' })
    return pino(settings, stream)
  }
  try {
    if (file !== undefined) mkdirSync(dirname(file), { recursive: true })
    const destination = pino.destination({ dest: file ?? 1, sync: true })
    // A full disk or a closed pipe costs the log, never the tunnel.
    destination.on('error', () => {})
    return pino({ ...settings, formatters: { level: (label) => ({ level: label }) } }, destination)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new ProxyError('PROXY_ERR_LOG', `cannot write the log to ${file}: ${why}`, { cause: error })
  }
}
