import type { Logger } from './log.ts'

export interface Stoppable {
  /** Takes nothing new, lets what is open finish until `signal` fires, then closes all. */
  drain(options: { signal: AbortSignal }): Promise<void>
}

/** How long a side that has to stop at once takes to say so, in ms. */
const LAST_WORDS = 100

/** The first SIGINT or SIGTERM from now on. Asked for before anything is started, so that a start can be stopped. */
export function stopSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    process.once('SIGINT', resolve)
    process.once('SIGTERM', resolve)
  })
}

/** Waits for SIGINT or SIGTERM, drains, and answers the exit status. A second signal stops at once. */
export async function untilStopped(
  service: Stoppable,
  /** `timeout` is asked for when it is time to stop. */
  options: { stop: Promise<NodeJS.Signals>; timeout: () => number; log: Logger },
): Promise<number> {
  const { timeout, log } = options
  const signal = await options.stop
  const timer = new AbortController()
  let stoppedAtOnce = false
  const stopNow = (): void => {
    stoppedAtOnce = true
    log.warn('stopped at once')
    // The other side hears of it in this moment, or finds out by itself.
    timer.abort()
    setTimeout(() => process.exit(1), LAST_WORDS)
  }
  process.on('SIGINT', stopNow)
  process.on('SIGTERM', stopNow)
  const handle = setTimeout(() => timer.abort(), timeout())
  const drained = service.drain({ signal: timer.signal })
  log.info({ signal }, 'stopping: open connections may finish')
  await drained
  clearTimeout(handle)
  if (stoppedAtOnce) return 1
  log.info('stopped')
  return 0
}
