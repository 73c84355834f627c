import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import test from 'node:test'
import { Budget } from '../../../lib/core/limits.ts'
import { Outbox } from '../../../lib/core/outbox.ts'
import type { SealedRecord } from '../../../lib/core/record.ts'
import { LinkBench } from '../../helpers/core/link-bench.ts'

const KIB = 1024
const LIMIT = 32 * KIB * KIB
const RANGE = { name: 'ProxyError', code: 'PROXY_ERR_ACK_RANGE' }
const ZEROS = Buffer.alloc(16)

/** Sends records over a link and keeps them; answers their plaintexts. */
function sendOn(bench: LinkBench, outbox: Outbox, ...sizes: number[]): Buffer[] {
  return sizes.map((size) => {
    const plain = randomBytes(size)
    outbox.keep(bench.link.send(plain))
    return plain
  })
}

/** All that is behind, sent again over another link. */
function resendOn(bench: LinkBench, outbox: Outbox): Buffer[] {
  while (outbox.behind) outbox.resend(bench.link)
  return bench.sent()
}

function kept(...sizes: number[]): { outbox: Outbox; plains: Buffer[]; bench: LinkBench } {
  const outbox = new Outbox(LIMIT)
  const bench = new LinkBench()
  const plains = sendOn(bench, outbox, ...sizes)
  assert.deepEqual(bench.sent(), plains)
  return { outbox, plains, bench }
}

test('a record counts with 256 bytes more than it has, until it is acknowledged', () => {
  const { outbox } = kept(1, 1000, 20_000)
  assert.equal(outbox.bytes, 21_001 + 3 * 256)
  outbox.acknowledge(1)
  assert.equal(outbox.bytes, 21_000 + 2 * 256)
  outbox.acknowledge(3)
  assert.equal(outbox.bytes, 0)
})

test('it is full when what is kept reaches the limit, and not before', () => {
  const outbox = new Outbox(2 * (1000 + 256))
  const bench = new LinkBench()
  sendOn(bench, outbox, 1000, 999)
  assert.equal(outbox.full, false)
  sendOn(bench, outbox, 400)
  assert.equal(outbox.full, true)
  outbox.acknowledge(1)
  assert.equal(outbox.full, false)
})

test('when the budget of all is used up, each has still a share of 256 KiB', () => {
  const budget = new Budget(1024 * KIB)
  const [greedy, modest] = [new Outbox(LIMIT, budget), new Outbox(LIMIT, budget)]
  const bench = new LinkBench()
  sendOn(bench, greedy, 512 * KIB - 256)
  assert.equal(greedy.full, false)
  sendOn(bench, greedy, 512 * KIB - 256)
  assert.equal(greedy.full, true)
  sendOn(bench, modest, 200 * KIB)
  assert.equal(modest.full, false)
  sendOn(bench, modest, 56 * KIB)
  assert.equal(modest.full, true)
  greedy.clear()
  assert.deepEqual([greedy.full, modest.full], [false, false])
  modest.acknowledge(2)
  assert.equal(budget.free, 1024 * KIB)
})

test('an acknowledgement may come in any steps, and again', () => {
  const { outbox } = kept(10, 10, 10, 10)
  for (const expected of [0, 0, 1, 1, 3, 3, 4, 4]) outbox.acknowledge(expected)
  assert.equal(outbox.bytes, 0)
})

test('an acknowledgement outside what is kept is a violation, and changes nothing', () => {
  const { outbox } = kept(10, 10, 10)
  outbox.acknowledge(1)
  const { bytes } = outbox
  for (const expected of [0, 4, 2 ** 53 - 1]) {
    assert.throws(() => outbox.acknowledge(expected), RANGE, `${expected}`)
    assert.throws(() => outbox.rewind(expected), RANGE, `${expected}`)
  }
  assert.equal(outbox.bytes, bytes)
  assert.equal(outbox.behind, false)
  outbox.acknowledge(3)
})

test('only an acknowledgement that moves says that something has arrived', () => {
  const { outbox } = kept(10)
  assert.equal(outbox.acknowledged, false)
  outbox.acknowledge(0)
  assert.equal(outbox.acknowledged, false)
  outbox.acknowledge(1)
  assert.equal(outbox.acknowledged, true)
})

test('what has not arrived goes again over the next link, in order, each record as it was', () => {
  const { outbox, plains } = kept(1, 300, 16_369, 70_000, 200_000, 2)
  assert.equal(outbox.behind, false)
  outbox.acknowledge(1)
  const { bytes } = outbox
  outbox.rewind(1)
  assert.equal(outbox.behind, true)
  const next = new LinkBench(0x22)
  assert.deepEqual(resendOn(next, outbox), plains.slice(1))
  assert.equal(outbox.behind, false)
  assert.equal(outbox.bytes, bytes, 'it is kept until it is acknowledged')
})

test('what the hello of the next link acknowledges does not go again', () => {
  const { outbox, plains } = kept(1, 2, 3, 4)
  outbox.rewind(3)
  assert.equal(outbox.acknowledged, true)
  assert.deepEqual(resendOn(new LinkBench(0x22), outbox), plains.slice(3))
  outbox.rewind(4)
  assert.equal(outbox.behind, false)
})

test('what is acknowledged before its turn has come does not go again', () => {
  const { outbox, plains } = kept(1, 2, 3, 4, 5)
  outbox.rewind(0)
  const next = new LinkBench(0x22)
  outbox.resend(next.link)
  // An ack that the old link had carried may be as new as that: the peer had more than its hello said.
  outbox.acknowledge(3)
  assert.deepEqual(resendOn(next, outbox), [plains[0], plains[3], plains[4]])
})

test('new records go on behind those that went again, and any number of links may come', () => {
  const { outbox, plains } = kept(1, 2)
  let fill = 0x22
  for (const size of [3, 4, 5, 6]) {
    const next = new LinkBench(fill++)
    // Half of them: the link is lost in the middle of it.
    outbox.rewind(0)
    outbox.resend(next.link)
    next.sent()
    const last = new LinkBench(fill++)
    outbox.rewind(0)
    assert.deepEqual(resendOn(last, outbox), plains)
    plains.push(...sendOn(last, outbox, size))
    assert.deepEqual(last.sent(), plains.slice(-1))
  }
  outbox.acknowledge(plains.length)
  assert.equal(outbox.bytes, 0)
  assert.throws(() => outbox.resend(new LinkBench().link), RangeError)
})

test('records of a link that is over, and whose keys are forgotten, go again all the same', () => {
  const { outbox, plains, bench } = kept(10, 20_000)
  bench.link.destroy()
  outbox.rewind(0)
  assert.deepEqual(resendOn(new LinkBench(0x22), outbox), plains)
})

/** Keeps one record; answers it after its link is over, so that nobody but the outbox holds the key. */
function keptAlone(): { outbox: Outbox; record: SealedRecord } {
  const outbox = new Outbox(LIMIT)
  const bench = new LinkBench()
  const record = bench.link.send(randomBytes(20_000))
  outbox.keep(record)
  bench.link.destroy()
  assert.notDeepEqual(record.key.bytes, ZEROS)
  return { outbox, record }
}

test('a key is given back when its last record is acknowledged, has gone again, or is given up', () => {
  const ways: ((outbox: Outbox) => void)[] = [
    (outbox) => outbox.acknowledge(1),
    (outbox) => outbox.rewind(1),
    (outbox) => {
      outbox.rewind(0)
      outbox.resend(new LinkBench(0x22).link)
    },
    (outbox) => outbox.clear(),
  ]
  for (const way of ways) {
    const { outbox, record } = keptAlone()
    way(outbox)
    assert.deepEqual(record.key.bytes, ZEROS, `${way}`)
  }
})

test('bytes that the system may still have to read are left as they are, even when they are acknowledged', () => {
  const outbox = new Outbox(LIMIT)
  const first = new LinkBench()
  const old = first.link.send(randomBytes(20_000))
  outbox.keep(old)
  outbox.acknowledge(1)
  const again = first.link.send(randomBytes(20_000))
  outbox.keep(again)
  outbox.taken()
  // It goes onto another link: what the system took was on the one before.
  outbox.rewind(1)
  const second = new LinkBench(0x22)
  outbox.resend(second.link)
  outbox.acknowledge(2)
  for (const { chunks } of [old, again]) assert.ok(Buffer.concat([...chunks]).length > 20_000)
  assert.equal(second.sent()[0]?.length, 20_000)
})
