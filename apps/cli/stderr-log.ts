import { pino } from 'pino'
import type { Logger } from '../common/log.ts'
import { LogFile } from '../common/log-file.ts'
import { logWire } from '../common/wire-log.ts'

const STDERR = 2

/** For a command whose standard output is for something else. A person gets plain lines, like those of an error. */
export function logToStderr(level: string): Logger {
  const stderr = new LogFile(STDERR)
  const settings = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime }
  const log = process.stderr.isTTY
    ? pino(settings, { write: (line) => stderr.write(`symport: ${messageOf(line)}\n`) })
    : pino({ ...settings, formatters: { level: (label) => ({ level: label }) } }, stderr)
  logWire(log)
  return log
}

function messageOf(line: string): string {
  const { msg } = JSON.parse(line) as { msg?: unknown }
  return String(msg)
}
