import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import type { Link, SubConnection } from '../../lib/core/index.ts'
import { tcp } from '../../lib/index.ts'
import { codeDomain, codePairs } from '../helpers/contract/code.ts'
import { dialProgram, program } from '../helpers/contract/programs.ts'
import { connectPair, everyWay, MEMORY, TCP } from '../helpers/contract/proxies.ts'
import { eventually, soon, watchForStrays } from '../helpers/contract/strays.ts'

/** One main connection, many sub-connections: none stands in the way of another. */

const MIB = 1024 * 1024
const both = { near: { domains: [tcp()] }, far: { domains: [tcp()] } }
const links = [MEMORY, TCP]

watchForStrays()

/** Writes as long as it is taken, until `stop` fires. */
function flood(sub: SubConnection, stop: AbortSignal): void {
  const chunk = Buffer.alloc(65_536)
  const more = (): void => {
    while (!stop.aborted && !sub.destroyed && sub.write(chunk)) {}
  }
  sub.on('drain', more)
  more()
}

/** One round of 64 bytes there and back. */
async function pingPong(near: SubConnection, far: SubConnection): Promise<number> {
  const begun = performance.now()
  near.write(Buffer.alloc(64, 1))
  far.write((await once(far, 'data'))[0])
  await once(near, 'data')
  return performance.now() - begun
}

everyWay('a reader that stops does not stop others', { links }, async ({ near, far, farCode }) => {
  const pairs = await codePairs(near, farCode)
  const stop = new AbortController()
  for (let n = 0; n < 20; n++) {
    const { opened, accepted } = await pairs.next()
    // Nobody reads `accepted`, nor `opened`.
    flood(opened, stop.signal)
    flood(accepted, stop.signal)
  }
  const { opened, accepted } = await pairs.next()
  let received = 0
  accepted.on('data', (chunk: Buffer) => {
    received += chunk.length
  })
  flood(opened, stop.signal)
  await eventually(() => received > 16 * MIB, 'the one that reads gets nothing', 20_000)
  stop.abort()
  assert.equal(near.state, 'connected')
  assert.equal(far.state, 'connected')
})

everyWay('a program that stops reading does not stop others', { ...both, links }, async ({ near }) => {
  await using target = await program()
  const listener = await near.newListener({ Listen: { Domain: 'tcp', Addr: '127.0.0.1:0' }, Forward: target.endpoint })
  for (let n = 0; n < 4; n++) {
    const socket = await dialProgram(listener.bound)
    await target.accepted()
    socket.write(Buffer.alloc(24 * MIB))
  }
  const socket = await dialProgram(listener.bound)
  const server = await target.accepted()
  let received = 0
  server.on('data', (chunk: Buffer) => {
    received += chunk.length
  })
  socket.write(Buffer.alloc(8 * MIB))
  await eventually(() => received === 8 * MIB, 'the one that reads gets nothing', 20_000)
  socket.destroy()
})

everyWay('a bulk transfer does not starve a small one', { links }, async ({ near, farCode }) => {
  const pairs = await codePairs(near, farCode)
  const stop = new AbortController()
  let bulk = 0
  for (let n = 0; n < 4; n++) {
    const { opened, accepted } = await pairs.next()
    accepted.on('data', (chunk: Buffer) => {
      bulk += chunk.length
    })
    flood(opened, stop.signal)
  }
  const small = await pairs.next()
  await eventually(() => bulk > 4 * MIB, 'the bulk moves')
  const rounds: number[] = []
  const before = bulk
  for (let turn = 0; turn < 50; turn++) rounds.push(await soon(pingPong(small.opened, small.accepted), 'a round'))
  const between = (bulk - before) / rounds.length
  stop.abort()
  rounds.sort((one, other) => one - other)
  assert.ok((rounds[25] ?? 0) < 50, `half of the rounds take more than ${rounds[25]?.toFixed(1)} ms`)
  // What one round waits for is what was under way when it began, not all that there is to send.
  assert.ok(between < 24 * MIB, `${(between / MIB).toFixed(1)} MiB pass by in one round`)
})

everyWay('64 bulk transfers share evenly', { links }, async ({ near, farCode }) => {
  const pairs = await codePairs(near, farCode)
  const stop = new AbortController()
  const received = new Array<number>(64).fill(0)
  let measuring = false
  for (let n = 0; n < 64; n++) {
    const { opened, accepted } = await pairs.next()
    accepted.on('data', (chunk: Buffer) => {
      if (measuring) received[n] = (received[n] ?? 0) + chunk.length
    })
    flood(opened, stop.signal)
  }
  measuring = true
  const all = (): number => received.reduce((sum, bytes) => sum + bytes, 0)
  // The first ones have grown while they were few; what counts is that it evens out.
  await eventually(() => all() > 64 * MIB, 'the bulk moves', 40_000)
  received.fill(0)
  await eventually(() => all() > 64 * MIB, 'the bulk moves on', 40_000)
  stop.abort()
  const [least, most] = [Math.min(...received), Math.max(...received)]
  assert.ok(most < 3 * least, `between ${(least / MIB).toFixed(2)} and ${(most / MIB).toFixed(2)} MiB each`)
})

everyWay('a control frame overtakes bulk: an open beside transfers is answered soon', { links }, async (stage) => {
  const pairs = await codePairs(stage.near, stage.farCode)
  const stop = new AbortController()
  for (let n = 0; n < 8; n++) {
    const { opened, accepted } = await pairs.next()
    accepted.resume()
    flood(opened, stop.signal)
  }
  const begun = performance.now()
  for (let turn = 0; turn < 20; turn++) await soon(pairs.next(), 'an open')
  const each = (performance.now() - begun) / 20
  stop.abort()
  assert.ok(each < 50, `${each.toFixed(1)} ms for an open`)
})

/** Counts what was written to a link, and not been taken from it. */
function watchPending(most: { pending: number }): (link: Link) => Link {
  return (link) =>
    new Proxy(link, {
      get(target, name) {
        if (name === 'write') {
          return (chunks: readonly Uint8Array[]) => {
            target.write(chunks)
            most.pending = Math.max(most.pending, target.pending)
          }
        }
        const value: unknown = Reflect.get(target, name, target)
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
}

test('no more than about one record waits in user space below the sub-connections', async (t) => {
  for (const kind of links) {
    const most = { pending: 0 }
    const wrap = watchPending(most)
    const code = codeDomain()
    await using pair = await connectPair(kind, { accepting: { domains: [code] }, wrap })
    const pairs = await codePairs(pair.dialling, code)
    const stop = new AbortController()
    let received = 0
    for (let n = 0; n < 16; n++) {
      const { opened, accepted } = await pairs.next()
      accepted.on('data', (chunk: Buffer) => {
        received += chunk.length
      })
      flood(opened, stop.signal)
    }
    await eventually(() => received > 16 * MIB, 'the bulk moves', 20_000)
    stop.abort()
    t.diagnostic(`${kind.name}: ${(most.pending / 1024).toFixed(0)} KiB pending at most`)
    assert.ok(most.pending <= 600_000, `${kind.name}: ${most.pending} bytes wait`)
  }
})
