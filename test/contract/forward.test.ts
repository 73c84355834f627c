import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Duplex } from 'node:stream'
import { test } from 'node:test'
import fc from 'fast-check'
import { localPair } from '../../lib/core/local-pair.ts'
import { forward } from '../../lib/hub/forward.ts'
import { type DomainPlugin, tcp } from '../../lib/index.ts'
import { CODE, codeDomain, endOf } from '../helpers/contract/code.ts'
import { begin, dialProgram, ending, pattern, program, readAll, sha256 } from '../helpers/contract/programs.ts'
import { play, resets, script, total } from '../helpers/contract/script.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'

/** Listening and forwarding inside one process, with no main connection between. */

const ANY_PORT = { Domain: 'tcp', Addr: '127.0.0.1:0' }
const signal = new AbortController().signal

watchForStrays()

async function forwarding(Forward: { Domain: string; Addr: string }) {
  const [listener] = await forward([{ Listen: ANY_PORT, Forward }], { domains: [tcp()], signal })
  assert.ok(listener)
  return listener
}

test('a large transfer arrives whole in both directions, with half-close', async () => {
  await using target = await program()
  await using listener = await forwarding(target.endpoint)
  const [up, down] = [pattern(8_000_000, 1), pattern(8_000_000, 2)]
  const client = await dialProgram(listener.bound)
  const server = await target.accepted()
  client.end(up)
  const atServer = await readAll(server)
  server.end(down)
  assert.equal(sha256(atServer), sha256(up))
  assert.equal(sha256(await readAll(client)), sha256(down))
})

test('nothing behind the target is a close', async () => {
  const gone = await program()
  await gone[Symbol.asyncDispose]()
  await using listener = await forwarding(gone.endpoint)
  assert.equal(await soon(ending(begin(listener.bound)), 'the close'), 'reset')
})

test('a user who is gone before the target has answered leaves no connection behind', async () => {
  const code = codeDomain()
  let answer: (duplex: Duplex) => void = () => {}
  const slow: DomainPlugin = {
    name: 'slow',
    dial: () =>
      new Promise((resolve) => {
        answer = resolve
      }),
  }
  const [listener] = await forward([{ Listen: CODE, Forward: { Domain: 'slow', Addr: '' } }], {
    domains: [code, slow],
    signal,
  })
  const user = await code.open()
  user.destroy()
  await endOf(user)
  await new Promise((resolve) => setTimeout(resolve, 10))
  const connection = new Duplex({ read() {}, write() {} })
  // It ends as a reset does, with an error.
  const closed = once(connection, 'error')
  answer(connection)
  await soon(closed, 'the connection to the target', 500)
  await listener?.close()
})

test('any sequence of writes, half-closes, resets and pauses passes a local pair', async () => {
  await fc.assert(
    fc.asyncProperty(script, script, async (one, other) => {
      const [near, far] = localPair()
      near.accepted()
      far.accepted()
      const [atNear, atFar] = await soon(Promise.all([play(near, one, 1, 2), play(far, other, 2, 1)]), 'the end')
      assert.equal(atNear.fault ?? atFar.fault, undefined)
      if (atNear.ended) assert.equal(atNear.received, total(other))
      if (atFar.ended) assert.equal(atFar.received, total(one))
      if (!resets(one) && !resets(other)) assert.ok(atNear.ended && atFar.ended && !atNear.error && !atFar.error)
      if (!resets(one)) assert.ok(atNear.ended || atNear.error)
      if (!resets(other)) assert.ok(atFar.ended || atFar.error)
    }),
    {
      seed: Number(process.env.SEED ?? 925),
      numRuns: 40,
    },
  )
})
