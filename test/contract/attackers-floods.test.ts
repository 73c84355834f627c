import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Frame } from '../../lib/core/frame.ts'
import { createPolicy, type DomainPlugin, type SubConnection } from '../../lib/index.ts'
import { attack, json, NEVER, ROLES, SINK } from '../helpers/contract/attacker.ts'
import { CODE } from '../helpers/contract/code.ts'
import { count, eventually, nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { frame, openPayload, u32 } from '../helpers/core/bytes.ts'
import type { RawPeer } from '../helpers/core/raw-peer.ts'

/** A peer that holds the secret and sends a lot. What it can take of this side is bounded. */

watchForStrays()
// Ten lines of a stack for each of half a million errors take a third of the time.
Error.stackTraceLimit = 1

const RESET = Buffer.from([0])
const MIB = 1024 * 1024
const MAX_SUB_CONNECTIONS = 16_384
const MAX_PENDING = 1024
const reset = (id: number): Buffer => frame(Frame.reset, id, RESET)
const listen = (id: number, at: unknown = CODE): Buffer => frame(Frame.listen, id, json({ Listen: at }))
const codeOf = (payload: Buffer): string => payload.toString('latin1', 1, 1 + ((payload[0] ?? 0) & 0x7f))

/** Sends many frames, some hundred KiB a record, and lets the other side work in between. */
async function sendAll(raw: RawPeer, frames: Iterable<Buffer>): Promise<void> {
  let batch: Buffer[] = []
  let bytes = 0
  const flush = async (): Promise<void> => {
    if (!raw.main.reason && bytes > 0) raw.send(...batch)
    batch = []
    bytes = 0
    await new Promise((resolve) => setImmediate(resolve))
  }
  for (const next of frames) {
    if (raw.main.reason) return
    batch.push(next)
    bytes += next.length
    if (bytes > 200_000) await flush()
  }
  await flush()
  if (!raw.stream.paused) await allRead(raw)
}

/** Resolves when the other side has read all that was sent, or has ended. */
async function allRead(raw: RawPeer): Promise<void> {
  if (raw.main.reason) return
  raw.send(frame(Frame.ping, 0, Buffer.alloc(8, 0xee)))
  await Promise.race([raw.next(Frame.pong).catch(() => {}), raw.ended])
}

const tally = (raw: RawPeer, type: number): Record<string, number> => {
  const found: Record<string, number> = {}
  for (const seen of raw.frames) {
    if (seen.type !== type) continue
    const code = codeOf(seen.payload)
    found[code] = (found[code] ?? 0) + 1
  }
  return found
}

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void
function memory(): number {
  // What the first one frees of buffers, the second one counts.
  gc()
  gc()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

for (const role of ROLES) {
  test(`four thousand opens and resets at once leave nothing, and never more than 1,024 dials (${role})`, async () => {
    await attack(role, {}, async ({ raw, mine, open, dialling, goesOn }) => {
      await sendAll(
        raw,
        (function* () {
          for (let n = 1; n <= 4000; n++) {
            yield open(mine(n), NEVER)
            yield reset(mine(n))
          }
        })(),
      )
      await eventually(() => count(raw.proxy) === 0 && dialling.now === 0, 'something is left')
      assert.ok(dialling.most <= MAX_PENDING, `${dialling.most} dials`)
      await goesOn()
    })
  })
}

// Which side is attacked makes no difference to what follows but the parity of the ids: one of them is enough.
test('20,000 opens without waiting are refused beyond 1,024, and end the session beyond all limits', async () => {
  await attack('acceptor', {}, async ({ raw, mine, open, dialling, endsSomehow }) => {
    await sendAll(
      raw,
      (function* () {
        for (let n = 1; n <= 20_000; n++) yield open(mine(n), NEVER)
      })(),
    )
    await endsSomehow('PROXY_ERR_TOO_MANY_SUB_CONNECTIONS')
    await soon(raw.over(), 'the rest of the answers')
    assert.equal(dialling.most, MAX_PENDING)
    assert.equal(dialling.now, 0)
    const codes = tally(raw, Frame.reset)
    assert.ok((codes.PROXY_ERR_TOO_MANY_OPENS ?? 0) >= 15_000, JSON.stringify(codes))
  })
})

test('a peer that reads late is told why the session ended, all the same', async () => {
  await attack('dialler', {}, async ({ raw, mine, open }) => {
    raw.pause()
    await sendAll(
      raw,
      (function* () {
        for (let n = 1; n <= 10_000; n++) yield open(mine(n), { Domain: 'nowhere', Addr: '' })
        yield open(0)
      })(),
    )
    assert.equal((await soon(raw.ended, 'the end')).code, 'PROXY_ERR_ID')
    raw.resume()
    const { payload } = await soon(raw.next(Frame.goaway), 'goaway')
    assert.equal(codeOf(payload), 'PROXY_ERR_ID')
  })
})

test('dials that were given up, and do not end, count until they do', async () => {
  let now = 0
  let most = 0
  const ends: (() => void)[] = []
  const deaf: DomainPlugin = {
    name: 'deaf',
    dial: () =>
      new Promise((_, reject) => {
        most = Math.max(most, ++now)
        ends.push(() => {
          now--
          reject(new Error('at last'))
        })
      }),
  }
  await attack('dialler', { proxy: { domains: [deaf] } }, async ({ raw, mine, open, goesOn }) => {
    const to = { Domain: 'deaf', Addr: '' }
    await sendAll(
      raw,
      (function* () {
        for (let n = 1; n <= 3000; n++) {
          yield open(mine(n), to)
          yield reset(mine(n))
        }
      })(),
    )
    await eventually(() => count(raw.proxy) === 0, 'sub-connections are left')
    assert.equal(most, MAX_PENDING)
    for (const end of ends) end()
    await goesOn()
  })
})

test('listens that were given up, and do not end, count until they do', async () => {
  let now = 0
  let most = 0
  const deaf: DomainPlugin = {
    name: 'deaf',
    listen: () =>
      new Promise(() => {
        most = Math.max(most, ++now)
      }),
  }
  await attack('dialler', { proxy: { domains: [deaf] } }, async ({ raw, goesOn }) => {
    await sendAll(
      raw,
      (function* () {
        for (let id = 1; id <= 5000; id++) {
          yield listen(id, { Domain: 'deaf', Addr: '' })
          yield frame(Frame.unlisten, id)
        }
      })(),
    )
    assert.ok(most <= 1024, `${most} listens under way at once`)
    await goesOn()
  })
})

test('2,000 listens are refused beyond 1,024, and all end with the session', async () => {
  await attack('dialler', {}, async ({ raw, code, goesOn }) => {
    await sendAll(
      raw,
      (function* () {
        for (let id = 1; id <= 2000; id++) yield listen(id)
      })(),
    )
    await eventually(() => code.listening === 1024, `${code.listening} listeners`)
    await eventually(
      () => tally(raw, Frame.refused).PROXY_ERR_TOO_MANY_LISTENERS === 976,
      JSON.stringify(tally(raw, Frame.refused)),
    )
    await goesOn()
    raw.send(frame(Frame.unlisten, 1), listen(2001))
    await raw.next(Frame.listening, 2001)
    raw.proxy.close()
    await eventually(() => code.listening === 0, `${code.listening} listeners are left`)
  })
})

test('a flood of listens whose answers are never read is PROXY_ERR_CONTROL_FLOOD, memory bounded', async () => {
  const policy = createPolicy({ dial: 'none', listenPorts: 'none' })
  await attack('dialler', { proxy: { policy } }, async ({ raw }) => {
    raw.pause()
    const before = memory()
    let most = 0
    let sent = 0
    await sendAll(
      raw,
      (function* () {
        for (let id = 1; id <= 120_000; id++) {
          if (id % 20_000 === 0) most = Math.max(most, memory() - before)
          sent = id
          yield listen(id)
        }
      })(),
    )
    assert.equal((await soon(raw.ended, 'the end')).code, 'PROXY_ERR_CONTROL_FLOOD')
    assert.ok(sent < 100_000, `${sent} listens`)
    assert.ok(most < 32 * MIB, `${(most / MIB).toFixed(0)} MiB`)
    await nothingLeft(raw.proxy)
  })
})

test('a flood of opens and resets whose answers are never read waits, memory bounded', async () => {
  await attack('acceptor', {}, async ({ raw, mine, open, goesOn }) => {
    raw.pause()
    const before = memory()
    let most = 0
    await sendAll(
      raw,
      (function* () {
        for (let n = 1; n <= 20_000; n++) {
          if (n % 10_000 === 0) most = Math.max(most, memory() - before)
          yield open(mine(n), { Domain: 'nowhere', Addr: '' })
          yield reset(mine(n))
        }
      })(),
    )
    assert.ok(most < 32 * MIB, `${(most / MIB).toFixed(0)} MiB`)
    raw.resume()
    await allRead(raw)
    await nothingLeft(raw.proxy)
    await goesOn()
  })
})

for (const role of ROLES) {
  test(`pings whose answers are never read leave at most one pong waiting (${role})`, async () => {
    await attack(role, {}, async ({ raw }) => {
      raw.pause()
      const before = memory()
      for (let turn = 0; turn < 300; turn++) {
        for (let n = 0; n < 100; n++) raw.send(frame(Frame.ping, 0, Buffer.alloc(8, n)))
        await new Promise((resolve) => setImmediate(resolve))
      }
      const used = memory() - before
      assert.ok(used < 16 * MIB, `${(used / MIB).toFixed(0)} MiB`)
      assert.equal(raw.main.reason, undefined)
    })
  })
}

test('pings in one record are answered by one pong', async () => {
  await attack('dialler', {}, async ({ raw, goesOn }) => {
    raw.send(...Array.from({ length: 20_000 }, () => frame(Frame.ping, 0, Buffer.alloc(8, 7))))
    await goesOn()
    assert.equal(raw.frames.filter(({ type }) => type === Frame.pong).length, 1)
  })
})

/** Fills the windows of `n` sub-connections with data frames of one byte, and tells what that costs. */
async function pin(
  raw: RawPeer,
  ids: readonly number[],
  opens: readonly Buffer[],
  frameOf: (id: number) => Buffer,
): Promise<{ bytes: number; cost: number }> {
  const windows: number[] = []
  for (const [index, id] of ids.entries()) {
    raw.send(opens[index] ?? Buffer.alloc(0))
    windows.push((await soon(raw.next(Frame.opened, id), 'opened')).payload.readUInt32BE())
  }
  const before = memory()
  let bytes = 0
  for (const [index, id] of ids.entries()) {
    const window = windows[index] ?? 0
    bytes += window
    const batch = Buffer.concat(Array<Buffer>(8192).fill(frameOf(id)))
    const each = frameOf(id).length - 8
    const per = batch.length / (each + 8)
    for (let left = Math.floor(window / each); left > 0; left -= per) {
      raw.sendRecord(batch.subarray(0, Math.min(left, per) * (each + 8)))
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  await allRead(raw)
  assert.equal(raw.main.reason, undefined)
  return { bytes, cost: memory() - before }
}

test('data in frames of one byte for a program that does not read pins no multiple of its window', async () => {
  await attack('dialler', {}, async ({ raw, mine, open }) => {
    const ids = [mine(1), mine(2)]
    const { bytes, cost } = await pin(
      raw,
      ids,
      ids.map((id) => open(id)),
      (id) => frame(Frame.data, id, 'x'),
    )
    assert.ok(cost < 16 * bytes, `${(cost / MIB).toFixed(1)} MiB for ${(bytes / MIB).toFixed(1)} MiB of window`)
  })
})

test('data in frames of one byte for code that does not read pins no multiple of its window', async () => {
  await attack('acceptor', {}, async ({ raw, mine }) => {
    const accepting = raw.proxy.accept(CODE)
    const { id: listener } = await raw.next(Frame.listen)
    raw.send(frame(Frame.listening, listener, json({ bound: CODE })))
    await accepting
    const ids = [mine(1), mine(2)]
    const opens = ids.map((id) => frame(Frame.open, id, openPayload(1, { listener })))
    const { bytes, cost } = await pin(raw, ids, opens, (id) => frame(Frame.data, id, 'x'))
    assert.ok(cost < 16 * bytes, `${(cost / MIB).toFixed(1)} MiB for ${(bytes / MIB).toFixed(1)} MiB of window`)
  })
})

test('a small payload in a large record does not keep the record', async () => {
  await attack('acceptor', {}, async ({ raw, mine }) => {
    const accepting = raw.proxy.accept(CODE)
    const { id: listener } = await raw.next(Frame.listen)
    raw.send(frame(Frame.listening, listener, json({ bound: CODE })))
    await accepting
    const id = mine(1)
    raw.send(frame(Frame.open, id, openPayload(1, { listener })))
    const window = (await raw.next(Frame.opened, id)).payload.readUInt32BE()
    const filler = Buffer.concat(Array<Buffer>(8_000).fill(frame(Frame.credit, mine(2), u32(1))))
    const before = memory()
    // Each record has 98,000 bytes, of which 2,000 are to be kept: in all a window full of them.
    for (let left = window; left >= 2000; left -= 2000) {
      raw.sendRecord(Buffer.concat([frame(Frame.data, id, Buffer.alloc(2000)), filler]))
    }
    await allRead(raw)
    const cost = memory() - before
    assert.equal(raw.main.reason, undefined)
    assert.ok(cost < 4 * MIB, `${(cost / MIB).toFixed(1)} MiB for ${window} bytes`)
  })
})

test('a peer that never acknowledges and never answers makes us wait, not grow', async () => {
  await attack('acceptor', {}, async ({ raw, theirs }) => {
    const sub: SubConnection = await raw.proxy.open({ to: SINK })
    raw.send(frame(Frame.opened, (await raw.next(Frame.open)).id, u32(0xffff_ffff)))
    await once(sub, 'connect')
    const before = memory()
    const chunk = Buffer.alloc(MIB)
    let written = 0
    while (written < 200 * MIB) {
      if (!sub.write(chunk)) {
        const drained = await Promise.race([
          once(sub, 'drain').then(() => true),
          new Promise((resolve) => setTimeout(resolve, 100, false)),
        ])
        if (!drained) break
      }
      written += MIB
      raw.frames.length = 0
      raw.records.length = 0
    }
    assert.ok(written <= 40 * MIB, `${written / MIB} MiB were taken`)
    void before
    assert.equal(raw.main.reason, undefined)
    // All is well again when it does.
    const drained = once(sub, 'drain')
    raw.ack()
    await soon(drained, 'it goes on')
    assert.equal(sub.id, theirs(1))
    sub.destroy()
  })
})

test('opens of this side that the peer never answers wait, and fail with the session', async () => {
  await attack('acceptor', {}, async ({ raw }) => {
    const opens: Promise<string>[] = []
    for (let n = 0; n < 3000; n++) {
      opens.push(
        raw.proxy.dial(SINK).then(
          () => 'open',
          (error) => error.code,
        ),
      )
    }
    await eventually(() => count(raw.proxy) === MAX_PENDING, `${count(raw.proxy)} opens`)
    raw.proxy.close()
    const ends = await soon(Promise.all(opens), 'all the opens')
    assert.deepEqual([...new Set(ends)], ['PROXY_ERR_CLOSED'])
    await nothingLeft(raw.proxy)
  })
})

test('the limits that a peer announces are kept', async () => {
  const limits = { subConnections: 5, pendingOpens: 2 }
  await attack('acceptor', { limits }, async ({ raw }) => {
    const opens = Array.from({ length: 9 }, () => raw.proxy.dial(SINK))
    const ends = Promise.all(
      opens.map((open) =>
        open.then(
          () => 'open',
          (error) => error.code,
        ),
      ),
    )
    let seen = 0
    while (seen < 5) {
      const { id } = await soon(raw.next(Frame.open), 'an open')
      seen++
      const under = raw.frames.filter(({ type }) => type === Frame.open).length - seen + 1
      assert.ok(under <= 2, `${under} opens under way`)
      raw.send(frame(Frame.opened, id, u32(100)))
    }
    const all = await soon(ends, 'the rest')
    assert.equal(all.filter((end) => end === 'open').length, 5)
    assert.equal(all.filter((end) => end === 'PROXY_ERR_TOO_MANY_SUB_CONNECTIONS').length, 4)
  })
})

test('16,384 sub-connections at once are allowed, and the next one is refused', async () => {
  await attack('dialler', {}, async ({ raw, mine, open, ends }) => {
    for (let n = 1; n <= MAX_SUB_CONNECTIONS; n += 512) {
      raw.send(...Array.from({ length: 512 }, (_, index) => open(mine(n + index))))
      await raw.next(Frame.opened, mine(n + 511))
      raw.frames.length = 0
    }
    raw.send(open(mine(MAX_SUB_CONNECTIONS + 1)))
    const { payload } = await raw.next(Frame.reset, mine(MAX_SUB_CONNECTIONS + 1))
    assert.match(codeOf(payload), /^PROXY_ERR_TOO_MANY_(SUB_CONNECTIONS|OPENS)$/)
    raw.send(open(0))
    await ends('PROXY_ERR_ID')
  })
})
