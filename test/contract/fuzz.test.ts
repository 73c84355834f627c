import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { test } from 'node:test'
import { Frame } from '../../lib/core/frame.ts'
import { ProxyError } from '../../lib/core/index.ts'
import { Model, type Piece } from '../fuzz/model.ts'
import { encode, mutateBytes, mutateFrame, mutateGently, walk } from '../fuzz/mutations.ts'
import { parseOptions, UsageError } from '../fuzz/options.ts'
import { Oracle } from '../fuzz/oracle.ts'
import { Random } from '../fuzz/random.ts'
import { run } from '../fuzz/run.ts'
import { u32 } from '../helpers/core/bytes.ts'

/** A short run of what `npm run fuzz` does at length: it says how to run a failure again. */

for (const [name, seed] of [
  ['a seed that stays', 925],
  ['a new seed', randomInt(2 ** 31)],
] as const) {
  test(`mutated frames, handshakes and resumes do no harm (${name})`, { timeout: 30_000 }, async (t) => {
    t.diagnostic(`seed ${seed}`)
    const { tally, faults, codes } = await run({ seed, frames: 1000, handshakes: 50 })
    assert.deepEqual(faults, [], `npm run fuzz -- --seed ${seed} --only N`)
    assert.ok(tally.mutated >= 1000)
    assert.equal(tally.handshakes, 50)
    // It has been nearly everywhere: what is chosen by lot may not be chosen.
    assert.ok(tally.resumed > 0)
    const missing = (seen: ReadonlySet<number>): string[] =>
      Object.entries(Frame).flatMap(([name, type]) => (seen.has(type) ? [] : [name]))
    assert.ok(missing(tally.sent).length <= 3, `not sent: ${missing(tally.sent)}`)
    // Records of hello, ack, ping and pong are not counted there.
    assert.ok(missing(tally.received).length <= 4 + 3, `did not come: ${missing(tally.received)}`)
    for (const what of ['the end of a session', 'the end of a sub-connection']) {
      assert.ok([...codes.keys()].filter((key) => key.startsWith(what)).length > 2, what)
    }
    assert.ok(codes.has('a handshake at the acceptor: PROXY_ERR_HANDSHAKE'))
    assert.ok(codes.has('a handshake at the dialler: PROXY_ERR_HANDSHAKE'))
  })
}

test('one seed gives one sequence, and another one another', () => {
  const draw = (seed: number, stream: number): unknown[] => {
    const random = new Random(seed, stream)
    const frames = Array.from({ length: 20 }, () => mutateBytes(random, Buffer.from('abcdefgh')).toString('hex'))
    return [random.u32(), random.int(10), random.bytes(20).toString('hex'), ...frames]
  }
  assert.deepEqual(draw(7, 3), draw(7, 3))
  assert.notDeepEqual(draw(7, 3), draw(8, 3))
  assert.notDeepEqual(draw(7, 3), draw(7, 4))
})

test('the model makes frames that are right, and the mutations frames of every kind that are wrong', () => {
  const random = new Random(1)
  const model = new Model('dialler', () => 0, { sent: new Set(), received: new Set() })
  const types = new Set<number>()
  const changed = new Set<string>()
  const change = (piece: Piece): readonly Piece[] => {
    types.add(piece.type)
    for (const pieces of [mutateFrame(random, piece, model), mutateGently(random, piece, model) ?? []]) {
      for (const other of pieces) if (!encode(other).equals(encode(piece))) changed.add(`${piece.type}`)
    }
    return [piece]
  }
  for (let id = 2; id < 40; id += 2) {
    model.received(Frame.open, id, u32(5000))
    model.received(Frame.listen, id, Buffer.alloc(0))
  }
  for (let record = 0; record < 500; record++) {
    const plain = Buffer.concat(model.record(random, change).map(encode))
    assert.ok(walk(plain, (type, id, payload) => model.left(type, id, payload)))
  }
  const all = Object.values(Frame).filter((type) => type !== Frame.hello)
  assert.deepEqual([...types].sort(), [...all].sort())
  assert.deepEqual([...changed].sort(), all.map(String).sort())
})

test('the model notices data beyond all that was granted', () => {
  const model = new Model('dialler', () => 0, { sent: new Set(), received: new Set() })
  model.left(Frame.open, 1, u32(10))
  model.left(Frame.credit, 1, u32(5))
  assert.equal(model.received(Frame.data, 1, Buffer.alloc(15)), undefined)
  assert.match(model.received(Frame.data, 1, Buffer.alloc(1)) ?? '', /16 bytes for 1, of 15/)
})

test('the oracle takes no error without a code of ours, and no internal one', async () => {
  using oracle = new Oracle()
  oracle.check(new ProxyError('PROXY_ERR_FRAME', 'x'), 'a call')
  assert.deepEqual(oracle.faults, [])
  oracle.witness('--only 5').check(new Error('plain'), 'a call')
  oracle.check(new ProxyError('PROXY_ERR_INTERNAL', 'x'), 'a call')
  oracle.check(undefined, 'a call')
  assert.equal(oracle.faults.length, 3)
  assert.match(oracle.faults[0] ?? '', /^--only 5: a call: Error: plain/)
  assert.equal(oracle.codes.get('a call: PROXY_ERR_FRAME'), 1)
})

test('a wrong command line of the fuzzer is told', () => {
  assert.deepEqual(parseOptions(['--seed', '7', '--frames', '10', '--only', '-3']), {
    help: false,
    seed: 7,
    frames: 10,
    handshakes: 10_000,
    only: -3,
  })
  for (const args of [['--seed', 'x'], ['--frames', '-1'], ['--nothing'], ['7']]) {
    assert.throws(() => parseOptions(args), UsageError)
  }
})
