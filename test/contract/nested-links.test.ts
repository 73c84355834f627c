import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { test } from 'node:test'
import fc from 'fast-check'
import { connectWithKey, type DomainPlugin, linkFrom, Proxy, type SubConnection } from '../../lib/core/index.ts'
import { localPair } from '../../lib/core/local-pair.ts'
import { type MemoryOptions, memoryPair } from '../../lib/transports/memory.ts'
import { watchForStrays } from '../helpers/contract/strays.ts'
import { echo } from '../helpers/core/echo-domain.ts'

/**
 * Main connections inside sub-connections of others, as channels have them: windows within windows, records within records,
 * and in the middle a side that joins one sub-connection to another.
 */

const SEED = Number(process.env.SEED ?? 925)
const KEY = Buffer.alloc(16, 7)
/** Every window is as small as it gets. */
const TINY = { windowBytes: 1 }

watchForStrays()

interface Settings {
  readonly options: MemoryOptions
  readonly limits: { readonly windowBytes?: number }
}

type Ends = Parameters<typeof connectWithKey>[0]

/** Two Proxies with a main connection between `dialled` and `accepted`. */
async function proxies(dialled: Ends, accepted: Ends, { limits }: Settings, domains: readonly DomainPlugin[]) {
  const [near, far] = await Promise.all([
    connectWithKey(dialled, { key: KEY, role: 'dialler', limits }),
    connectWithKey(accepted, { key: KEY, role: 'acceptor', limits }),
  ])
  return { near: new Proxy(near), far: new Proxy(far, { domains }) }
}

/** A chain: near === middle === far, and inside of it one main connection between the ends. */
async function nested(settings: Settings) {
  const [one, two] = [memoryPair(settings.options), memoryPair(settings.options)]
  const [end, offered] = localPair()
  offered.accepted()
  const last = await proxies(two.a, two.b, settings, [{ name: 'end', dial: async () => end }])
  const next: DomainPlugin = {
    name: 'next',
    async dial() {
      const sub = await last.near.open({ to: { Domain: 'end', Addr: '' } })
      await once(sub, 'connect')
      return sub
    },
  }
  const first = await proxies(one.a, one.b, settings, [next])
  const way = await first.near.open({ to: { Domain: 'next', Addr: '' } })
  const inner = await proxies(linkFrom(way), linkFrom(offered), settings, [echo])
  const all = [inner.near, inner.far, first.near, first.far, last.near, last.far]
  return {
    open: () => inner.near.open({ to: { Domain: 'echo', Addr: '' } }),
    async close() {
      for (const proxy of all) proxy.close()
      await Promise.all(all.map(({ closed }) => closed))
    },
  }
}

async function read(sub: SubConnection): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of sub) chunks.push(chunk)
  return Buffer.concat(chunks)
}

async function echoed(sub: SubConnection, bytes: Buffer, piece: number): Promise<void> {
  const came = read(sub)
  for (let at = 0; at < bytes.length; at += piece) {
    if (!sub.write(bytes.subarray(at, at + piece))) await once(sub, 'drain')
  }
  sub.end()
  assert.ok((await came).equals(bytes))
}

test('windows within windows carry all bytes to the end, however small they and the pieces are', {
  timeout: 60_000,
}, async () => {
  const settings = fc.record({
    options: fc.record({
      fragment: fc.oneof(fc.integer({ min: 60, max: 3000 }), fc.constant(65_536)),
      capacity: fc.constantFrom(0, 1000, 65_536),
    }),
    limits: fc.constantFrom(TINY, {}),
  })
  const talks = fc.array(
    fc.record({ length: fc.integer({ min: 1, max: 30_000 }), piece: fc.integer({ min: 50, max: 20_000 }) }),
    {
      minLength: 1,
      maxLength: 5,
    },
  )
  const property = fc.asyncProperty(settings, talks, async (chosen, plan) => {
    const chain = await nested(chosen)
    try {
      await Promise.all(plan.map(async ({ length, piece }) => echoed(await chain.open(), randomBytes(length), piece)))
    } finally {
      await chain.close()
    }
  })
  await fc.assert(property, { seed: SEED, numRuns: 20 })
})

test('a question inside a channel is answered beside a transfer that never ends, and one that nobody reads', async () => {
  const chain = await nested({ options: {}, limits: {} })
  try {
    const bulk = await chain.open()
    const stuck = await chain.open()
    for (const [sub, reads] of [
      [bulk, true],
      [stuck, false],
    ] as const) {
      sub.on('error', () => {})
      const fill = (): void => {
        while (!sub.destroyed && sub.write(Buffer.alloc(65_536)));
      }
      sub.on('drain', fill)
      if (reads) sub.resume()
      fill()
    }
    const asking = await chain.open()
    for (let questions = 0; questions < 20; questions++) {
      const before = bulk.bytesRead
      asking.write('who is there?')
      await once(asking, 'data')
      // Some questions are faster than the next piece; the last of them sees that it goes on.
      if (questions === 19) while (bulk.bytesRead === before) await once(bulk, 'data')
    }
    assert.ok(bulk.bytesRead > 1_000_000, `${bulk.bytesRead} bytes came meanwhile`)
    asking.destroy()
  } finally {
    await chain.close()
  }
})
