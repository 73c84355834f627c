import { Duplex } from 'node:stream'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { createProxyPair } from '../../../lib/testing.ts'
import { echo } from './echo-domain.ts'

/*
 * Opens and ends many sub-connections, and prints how many bytes the two ends of each leave behind when only young garbage is
 * collected; and how many a stream does. In a process of its own: the test runner watches all promises, and has tables of its
 * own for that.
 */

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as (options?: { type: 'minor' }) => void

const AT_ONCE = 32
const WARM = 100
const ROUNDS = 60

await using pair = await createProxyPair({ b: { domains: [echo] } })
const { a } = pair
const message = Buffer.alloc(64)

async function one(): Promise<void> {
  const sub = await a.open({ to: { Domain: 'echo', Addr: '' } })
  sub.write(message)
  sub.once('data', () => sub.end())
  await new Promise((resolve) => sub.once('close', resolve))
}

/** A stream of Node.js's own, for which Node.js 24 leaves 650 bytes behind, and Node.js 20 nothing. */
async function bare(): Promise<void> {
  const stream = new Duplex({ read() {}, write: (_chunk, _encoding, callback) => callback() })
  stream.destroy()
  await new Promise((resolve) => stream.once('close', resolve))
}

async function many(act: () => Promise<void>, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    await Promise.all(Array.from({ length: AT_ONCE }, act))
    if (round % 5 === 0) collect({ type: 'minor' })
  }
}

async function used(): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, 20))
  collect({ type: 'minor' })
  collect({ type: 'minor' })
  return process.memoryUsage().heapUsed
}

async function leftBy(act: () => Promise<void>): Promise<number> {
  // What is there for good becomes old first, and what is compiled is.
  await many(act, WARM)
  collect()
  const before = await used()
  await many(act, ROUNDS)
  return Math.round(((await used()) - before) / (ROUNDS * AT_ONCE))
}

console.log(JSON.stringify({ ofEach: await leftBy(one), ofStream: await leftBy(bare) }))
