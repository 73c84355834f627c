import { isatty } from 'node:tty'
import type { Logger } from './log.ts'

/**
 * Whoever rotates logs tells every service by SIGHUP, which ends a process that does not expect it. What runs on a
 * terminal still ends with it.
 */
export function outliveHangUp(log: Logger): void {
  if (process.platform === 'win32' || [0, 1, 2].some((fd) => isatty(fd))) return
  process.on('SIGHUP', () => log.info('SIGHUP: goes on as before'))
}
