import type { Logger } from './log.ts'

export interface Stoppable {
  /** Takes nothing new, lets what is open finish until `signal` fires, then closes all. */
  drain(options: { signal: AbortSignal }): Promise<void>
}

/** Waits for SIGINT or SIGTERM, drains, and answers the exit status. A second signal stops at once. */
export async function untilStopped(service: Stoppable, options: { timeout: number; log: Logger }): Promise<number> {
  const { timeout, log } = options
  const signal = await new Promise<NodeJS.Signals>((resolve) => {
    process.once('SIGINT', resolve)
    process.once('SIGTERM', resolve)
  })
  const stopNow = (): never => {
    log.warn('stopped at once')
    process.exit(1)
  }
  process.on('SIGINT', stopNow)
  process.on('SIGTERM', stopNow)
  log.info({ signal }, 'stopping: open connections may finish')
  const timer = new AbortController()
  const handle = setTimeout(() => timer.abort(), timeout)
  await service.drain({ signal: timer.signal })
  clearTimeout(handle)
  log.info('stopped')
  return 0
}
