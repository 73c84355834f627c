import assert from 'node:assert/strict'
import { after } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Proxy } from '../../../lib/core/index.ts'

/** Fails the file if anything in it was thrown or rejected with nobody to take it. */
export function watchForStrays(): void {
  const strays: unknown[] = []
  const collect = (error: unknown): void => void strays.push(error)
  process.on('unhandledRejection', collect)
  process.on('uncaughtException', collect)
  after(async () => {
    await new Promise((resolve) => setImmediate(resolve))
    process.off('unhandledRejection', collect)
    process.off('uncaughtException', collect)
    assert.deepEqual(strays, [])
  })
}

/** Looks again and again until it holds, for what no event tells; fails after `patience` ms. */
export async function eventually(holds: () => boolean, what: string, patience = 10_000): Promise<void> {
  const until = performance.now() + patience
  while (!holds()) {
    assert.ok(performance.now() < until, what)
    await sleep(5)
  }
}

export function count(proxy: Proxy): number {
  return [...proxy.subConnections].length
}

/** Nothing is left in the maps of either side. */
export async function nothingLeft(...proxies: Proxy[]): Promise<void> {
  await eventually(
    () => proxies.every((proxy) => count(proxy) === 0),
    `sub-connections are left: ${proxies.map(count).join(' and ')}`,
  )
}

/** The promise, or a failure when it takes longer than `ms`. */
export async function soon<T>(promise: Promise<T>, what: string, ms = 10_000): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new assert.AssertionError({ message: `${what}: not within ${ms} ms` })), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
