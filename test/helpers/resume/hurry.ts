import assert from 'node:assert/strict'

/** Tries again at once: the wait between two attempts is a random part of something, and here none of it. */
export function hurry(): void {
  Math.random = () => 0
}

/** A few turns of the event loop, for what is to show that nothing happens. */
export async function turns(count = 20): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
}

/** Looks each turn of the event loop until it holds, for what no event tells; fails after `patience` ms. */
export async function until(holds: () => boolean, what: string, patience = 10_000): Promise<void> {
  const end = performance.now() + patience
  while (!holds()) {
    assert.ok(performance.now() < end, what)
    await turns(1)
  }
}
