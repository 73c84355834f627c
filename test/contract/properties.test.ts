import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Frame } from '../../lib/core/frame.ts'
import { Acceptor, connect, diagnostics, Proxy, type SubConnection } from '../../lib/core/index.ts'
import { memoryPair } from '../../lib/transports/memory.ts'
import { attack, credit, json, SINK } from '../helpers/contract/attacker.ts'
import { CODE, codeDomain, codePairs } from '../helpers/contract/code.ts'
import { play, resets, script, total } from '../helpers/contract/script.ts'
import { nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { frame, openPayload, u32 } from '../helpers/core/bytes.ts'

/**
 * Whatever both ends do: each byte once and in order, or a reset; windows are kept; nothing is left. A failure prints
 * its seed and path; `SEED=… node --test …` runs it again.
 */

const SEED = Number(process.env.SEED ?? 925)
/** Shrinking a hang takes the patience for it each time. */
const limits = (numRuns: number): fc.Parameters<unknown> => ({
  seed: SEED,
  numRuns,
})

watchForStrays()

const PSK = Buffer.alloc(32, 3)

async function pair(options: { fragment?: number; capacity?: number }, domains: { a: object[]; b: object[] }) {
  const links = memoryPair(options)
  const [{ main }, dialled] = await Promise.all([
    new Acceptor({ pskFor: async () => PSK }).accept(links.b),
    connect(async () => links.a, { secret: { name: '', suite: 'NNpsk0', psk: PSK } }),
  ])
  return {
    a: new Proxy(dialled, { domains: domains.a as never }),
    b: new Proxy(main, { domains: domains.b as never }),
  }
}

const link = fc.record(
  {
    fragment: fc.oneof(fc.integer({ min: 500, max: 5000 }), fc.constant(65_536)),
    capacity: fc.constantFrom(0, 1000, 65_536, 262_144),
  },
  { requiredKeys: [] },
)

test('any sequence of writes, half-closes, resets and pauses delivers each byte once and in order, or a reset', async () => {
  const opened = new Set<SubConnection>()
  const closed = new Set<SubConnection>()
  const onOpen = (message: unknown): void => void opened.add((message as { sub: SubConnection }).sub)
  const onClose = (message: unknown): void => void closed.add((message as { sub: SubConnection }).sub)
  diagnostics.subOpen.subscribe(onOpen)
  diagnostics.subClose.subscribe(onClose)
  const property = fc.asyncProperty(
    link,
    fc.integer({ min: 0, max: 120 }),
    fc.array(fc.record({ by: fc.constantFrom('a', 'b'), opener: script, answerer: script }), {
      minLength: 1,
      maxLength: 5,
    }),
    async (options, idle, plan) => {
      const [codeA, codeB] = [codeDomain(), codeDomain()]
      const { a, b } = await pair(options, { a: [codeA], b: [codeB] })
      try {
        const openedBy = { a: await codePairs(b, codeA), b: await codePairs(a, codeB) }
        // Neighbours that do nothing make the windows small.
        const neighbours = []
        for (let n = 0; n < idle; n++) neighbours.push(await openedBy.a.next())
        const plays = plan.map(async ({ by, opener, answerer }, index) => {
          const subs = await openedBy[by].next()
          const salts = [2 * index + 1, 2 * index + 2] as const
          const [atOpener, atAnswerer] = await Promise.all([
            play(subs.opened, opener, salts[0], salts[1]),
            play(subs.accepted, answerer, salts[1], salts[0]),
          ])
          for (const [end, other] of [
            [atOpener, answerer],
            [atAnswerer, opener],
          ] as const) {
            assert.equal(end.fault, undefined)
            assert.ok(end.received <= total(other), 'more than was sent')
            if (end.ended) assert.equal(end.received, total(other), 'an end before all bytes')
          }
          if (!resets(opener) && !resets(answerer)) {
            for (const end of [atOpener, atAnswerer]) {
              assert.equal(end.error, undefined)
              assert.equal(end.ended, true)
            }
          }
          // Who did not reset has seen the end, or the reset.
          if (!resets(opener)) assert.ok(atOpener.ended || atOpener.error, 'neither an end nor a reset')
          if (!resets(answerer)) assert.ok(atAnswerer.ended || atAnswerer.error, 'neither an end nor a reset')
        })
        await soon(Promise.all(plays), 'the end of all sub-connections', 8000)
        for (const { opened: sub } of neighbours) sub.destroy()
        await nothingLeft(a, b)
        assert.equal(a.main.reason ?? b.main.reason, undefined)
      } finally {
        a.close()
        await Promise.all([a.closed, b.closed])
      }
    },
  )
  try {
    await fc.assert(property, limits(40))
  } finally {
    diagnostics.subOpen.unsubscribe(onOpen)
    diagnostics.subClose.unsubscribe(onClose)
  }
  assert.ok(opened.size > 0)
  assert.deepEqual([...opened].filter((sub) => !closed.has(sub)).length, 0, 'a sub:open without a sub:close')
})

for (const role of ['dialler', 'acceptor'] as const) {
  test(`data never exceeds the credit that was granted (to the ${role})`, async () => {
    const grants = fc.array(
      fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1000, max: 90_000 }), fc.constant(400_000)),
      { maxLength: 12 },
    )
    const property = fc.asyncProperty(
      fc.array(fc.record({ first: fc.integer({ min: 0, max: 300_000 }), grants, writes: grants }), {
        minLength: 1,
        maxLength: 4,
      }),
      async (plan) => {
        await attack(role, {}, async ({ raw }) => {
          const subs = []
          for (const { writes } of plan) {
            const sub = await raw.proxy.open({ to: SINK })
            sub.on('error', () => {})
            for (const bytes of writes) sub.write(Buffer.alloc(bytes))
            subs.push({ sub, all: writes.reduce((sum, bytes) => sum + bytes, 0) })
          }
          const ids: number[] = []
          while (ids.length < plan.length) ids.push((await soon(raw.next(Frame.open), 'an open')).id)
          const sent = (id: number): number =>
            raw.frames.reduce(
              (sum, seen) => sum + (seen.type === Frame.data && seen.id === id ? seen.payload.length : 0),
              0,
            )
          const settled = async (id: number, expected: number): Promise<void> => {
            // All that may come has come when a ping is answered behind it, and never a byte more.
            for (let turn = 0; turn < 400 && sent(id) < expected; turn++) {
              await new Promise((resolve) => setImmediate(resolve))
              if (turn % 20 === 19) raw.ack()
            }
            raw.send(frame(Frame.ping, 0, Buffer.alloc(8, 1)))
            await raw.next(Frame.pong)
            assert.equal(sent(id), expected)
          }
          for (const [index, { first, grants: given }] of plan.entries()) {
            const id = ids[index] ?? 0
            const all = subs[index]?.all ?? 0
            await settled(id, Math.min(all, 16_384))
            raw.send(frame(Frame.opened, id, u32(first)))
            let granted = first
            await settled(id, Math.min(all, Math.max(granted, Math.min(all, 16_384))))
            for (const more of given) {
              raw.send(credit(id, more))
              granted += more
              await settled(id, Math.min(all, Math.max(granted, Math.min(all, 16_384))))
            }
          }
        })
      },
    )
    await fc.assert(property, limits(12))
  })

  test(`credit that was announced can be used to the last byte, and comes back (by the ${role})`, async () => {
    const property = fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1, maxLength: 30 }),
      fc.integer({ min: 0, max: 150 }),
      async (sizes, idle) => {
        await attack(role, {}, async ({ raw, mine, open }) => {
          const accepting = raw.proxy.accept(CODE)
          const { id: listener } = await raw.next(Frame.listen)
          raw.send(frame(Frame.listening, listener, json({ bound: CODE })))
          const incoming = (await accepting)[Symbol.asyncIterator]()
          for (let n = 1; n <= idle; n++) raw.send(open(mine(n)))
          const id = mine(idle + 1)
          raw.send(frame(Frame.open, id, openPayload(1, { listener })))
          let left = (await raw.next(Frame.opened, id)).payload.readUInt32BE()
          const window = left
          const { value: sub } = await incoming.next()
          assert.ok(sub)
          let read = 0
          sub.on('data', (chunk: Buffer) => {
            read += chunk.length
            sub.pause()
            setImmediate(() => sub.resume())
          })
          // Three windows and more, each byte of them inside what was granted.
          for (let sent = 0, turn = 0; sent < 3 * window + 10_000; turn++) {
            if (left === 0)
              left += (await soon(raw.next(Frame.credit, id), `credit after ${sent}`)).payload.readUInt32BE()
            const bytes = Math.min(left, sizes[turn % sizes.length] ?? 1)
            raw.send(frame(Frame.data, id, Buffer.alloc(bytes)))
            sent += bytes
            left -= bytes
            assert.equal(raw.main.reason, undefined)
          }
          raw.send(frame(Frame.fin, id))
          sub.end()
          await soon(new Promise((resolve) => sub.once('close', resolve)), 'the end')
          assert.ok(read > 3 * window)
        })
      },
    )
    await fc.assert(property, limits(10))
  })
}
