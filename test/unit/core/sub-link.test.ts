import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import test from 'node:test'
import { ProxyError } from '../../../lib/core/errors.ts'
import type { Link, LinkSink } from '../../../lib/core/link.ts'
import { localPair } from '../../../lib/core/local-pair.ts'
import { linkFrom } from '../../../lib/core/stream-link.ts'
import { SubLink } from '../../../lib/core/sub-link.ts'
import { ByteStream } from '../../helpers/core/byte-stream.ts'
import { hosted } from '../../helpers/core/fake-host.ts'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** What a link tells, in order. Takes no more than it is told to. */
class Witness implements LinkSink {
  readonly calls: string[] = []
  more = true
  readonly closing: Promise<Error | undefined>
  #close: (error?: Error) => void = () => {}

  constructor() {
    this.closing = new Promise((resolve) => {
      this.#close = resolve
    })
  }

  /** The bytes alone. */
  get seen(): string {
    return this.calls
      .filter((call) => call.startsWith('> '))
      .join('')
      .replaceAll('> ', '')
  }

  received(bytes: Uint8Array): boolean {
    this.calls.push(`> ${Buffer.from(bytes)}`)
    return this.more
  }

  drained(): void {
    this.calls.push('drained')
  }

  ended(): void {
    this.calls.push('ended')
  }

  closed(error?: Error): void {
    this.calls.push(`closed ${error instanceof ProxyError ? error.code : error}`)
    this.#close(error)
  }
}

/** What comes lands in its buffer. */
class Placed extends Witness {
  readonly #place: Uint8Array

  constructor(place: Uint8Array) {
    super()
    this.#place = place
  }

  buffer(): Uint8Array {
    return this.#place
  }

  override received(bytes: Uint8Array): boolean {
    assert.equal(bytes.buffer, this.#place.buffer)
    return super.received(bytes)
  }
}

function witnessed(place?: Uint8Array) {
  const { host, sub } = hosted()
  const link = linkFrom(sub, '192.0.2.1:5', 'channel')
  const sink = place ? new Placed(place) : new Witness()
  link.start(sink)
  return { host, sub, link, sink }
}

function linkedPair(): [ByteStream, ByteStream] {
  const [near, far] = localPair()
  far.accepted()
  return [new ByteStream(linkFrom(near)), new ByteStream(linkFrom(far))]
}

test('a link from a sub-connection passes its Duplex by, and knows what it was told', () => {
  const { sub } = hosted()
  const link = linkFrom(sub, '192.0.2.1:5', 'channel')
  assert.ok(link instanceof SubLink)
  assert.deepEqual([link.remote, link.transport, link.copies, link.pending], ['192.0.2.1:5', 'channel', true, 0])
})

test('bytes pass both ways, in order and each once', async () => {
  const [a, b] = linkedPair()
  const [up, down] = [randomBytes(2_000_000), randomBytes(1_500_000)]
  for (let at = 0; at < up.length; at += 70_001)
    a.link.write([up.subarray(at, at + 33), up.subarray(at + 33, at + 70_001)])
  b.link.write([down])
  a.link.end()
  b.link.end()
  const [came, went] = await Promise.all([b.rest(), a.rest()])
  assert.ok(came.equals(up))
  assert.ok(went.equals(down))
})

test('half-close: after the far side has finished, bytes still go the other way', async () => {
  const [a, b] = linkedPair()
  a.link.write([Buffer.from('last')])
  a.link.end()
  assert.equal((await b.rest()).toString(), 'last')
  assert.equal(b.end, 'ended')
  b.link.write([Buffer.from('answer')])
  b.link.end()
  assert.equal((await a.rest()).toString(), 'answer')
})

test('closed is the last call, once both directions have ended', async () => {
  const { host, sub, link, sink } = witnessed()
  sub.onData(Buffer.from('last'))
  sub.onFin()
  link.end()
  await sink.closing
  assert.deepEqual(sink.calls, ['> last', 'ended', 'closed undefined'])
  assert.deepEqual(host.calls, ['fin', 'ended'])
})

test('what came before start is told in a later turn', async () => {
  const { sub } = hosted()
  sub.onData(Buffer.from('early, '))
  sub.onData(Buffer.from('and more'))
  sub.onFin()
  const sink = new Witness()
  linkFrom(sub).start(sink)
  assert.deepEqual(sink.calls, [])
  await turn()
  await turn()
  assert.equal(sink.seen, 'early, and more')
  assert.equal(sink.calls.at(-1), 'ended')
})

test('nothing is told from inside write, even if the far side answers at once', async () => {
  const [near, far] = localPair()
  far.accepted()
  far.on('data', (bytes) => far.write(`re: ${bytes}`))
  far.on('end', () => far.end())
  const link = linkFrom(near)
  const sink = new Witness()
  link.start(sink)
  await turn()
  link.write([Buffer.from('one')])
  link.end()
  assert.deepEqual(sink.calls, [])
  await sink.closing
  assert.deepEqual(sink.calls, ['> re: one', 'ended', 'closed undefined'])
})

test('bytes land in the buffer of the sink, in pieces where it is short', async () => {
  const { sub, sink } = witnessed(Buffer.alloc(3))
  await turn()
  sub.onData(Buffer.from('abcdefgh'))
  assert.deepEqual(sink.calls, ['> abc', '> def', '> gh'])
})

test('memory is given back when the sink has had all of it, and kept as long as it has not', async () => {
  const { sub, link, sink } = witnessed(Buffer.alloc(4096))
  await turn()
  assert.equal(sub.onData(Buffer.alloc(8192)), true)
  sink.more = false
  const kept = Buffer.alloc(8192, 'k')
  assert.equal(sub.onData(kept), false)
  sink.more = true
  link.resume()
  assert.equal(sink.seen.slice(8192), 'k'.repeat(8192))
})

test('a sink that says no gets nothing more until resume: no piece, no end, no close', async () => {
  const { host, sub, link, sink } = witnessed(Buffer.alloc(3))
  await turn()
  sink.more = false
  sub.onData(Buffer.from('abcdefgh'))
  sub.onData(Buffer.from('ij'))
  sub.onFin()
  link.end()
  await turn()
  assert.equal(sink.seen, 'abc')
  for (const seen of ['abcdef', 'abcdefgh', 'abcdefghij']) {
    assert.ok(!host.calls.includes('ended'), 'what is still held keeps the id')
    link.resume()
    assert.equal(sink.seen, seen)
    assert.ok(!sink.calls.includes('ended'))
  }
  link.resume()
  await sink.closing
  assert.deepEqual(sink.calls.slice(-2), ['ended', 'closed undefined'])
  assert.ok(host.calls.includes('ended'))
})

test('a sink that says no holds the far side back, and resume gives it credit', async () => {
  const { host, sub, link, sink } = witnessed()
  await turn()
  sink.more = false
  for (let sent = 0; sent < 65_536; sent += 8192) sub.onData(Buffer.alloc(8192))
  assert.equal(host.credit, 0)
  sink.more = true
  link.resume()
  assert.ok(host.credit >= 65_536)
})

test('resume from inside received changes nothing: the answer counts', async () => {
  const { sub } = hosted()
  const link = linkFrom(sub)
  let seen = ''
  link.start({
    received(bytes) {
      seen += Buffer.from(bytes)
      link.resume()
      return false
    },
    drained() {},
    ended() {},
    closed() {},
  })
  await turn()
  sub.onData(Buffer.from('a'))
  sub.onData(Buffer.from('b'))
  assert.equal(seen, 'a')
  link.resume()
  assert.equal(seen, 'ab')
})

test('pending counts what was not sent, and drained comes once it is 0', async () => {
  const { host, sub, link, sink } = witnessed()
  host.room = 4
  link.write([Buffer.from('abc'), Buffer.from('def'), Buffer.from('gh')])
  assert.equal(link.pending, 4)
  host.room = 1
  sub.onWritable(65_536)
  await turn()
  assert.equal(link.pending, 4, 'a piece counts until the last of it has gone')
  assert.deepEqual(sink.calls, [])
  host.room = 100
  sub.onWritable(65_536)
  await turn()
  assert.equal(link.pending, 0)
  assert.deepEqual(sink.calls, ['drained'])
  assert.equal(Buffer.concat(host.data).toString(), 'abcdefgh')
})

test('drained comes also after a write whose last chunk is empty', async () => {
  const { host, sub, link, sink } = witnessed()
  host.room = 1
  link.write([Buffer.from('abc'), Buffer.alloc(0)])
  assert.equal(link.pending, 2)
  host.room = 100
  sub.onWritable(65_536)
  await turn()
  assert.deepEqual(sink.calls, ['drained'])
})

test('a write that goes at once leaves nothing to drain, and its bytes may be used again', async () => {
  const { host, link, sink } = witnessed()
  const bytes = Buffer.from('once')
  link.write([bytes])
  bytes.fill(0)
  assert.equal(link.pending, 0)
  await turn()
  assert.deepEqual(sink.calls, [])
  assert.equal(Buffer.concat(host.data).toString(), 'once')
})

test('what is pending goes before the end; what is written after it, or after destroy, is dropped', async () => {
  const { host, sub, link } = witnessed()
  host.room = 1
  link.write([Buffer.from('one')])
  link.end()
  link.write([Buffer.from('two')])
  assert.ok(!host.calls.includes('fin'))
  host.room = 100
  sub.onWritable(65_536)
  await turn()
  assert.equal(host.calls.at(-1), 'fin')
  link.destroy()
  link.write([Buffer.from('three')])
  assert.equal(Buffer.concat(host.data).toString(), 'one')
})

test('a reset of the far side closes it with the reason, whatever the sink has not taken', async () => {
  const { host, sub, sink } = witnessed(Buffer.alloc(1))
  await turn()
  sink.more = false
  sub.onData(Buffer.from('abc'))
  sub.onReset(new ProxyError('PROXY_ERR_DIAL_DENIED', 'not there'))
  await sink.closing
  assert.deepEqual(sink.calls, ['> a', 'closed PROXY_ERR_DIAL_DENIED'])
  assert.ok(host.calls.includes('ended'))
})

test('destroy resets it, with the code that is given, and closes the link', async () => {
  const { host, link, sink } = witnessed()
  link.destroy(new ProxyError('PROXY_ERR_CHANNEL_PASSWORD', 'another one'))
  await sink.closing
  assert.deepEqual(host.calls, ['reset PROXY_ERR_CHANNEL_PASSWORD'])
  assert.deepEqual(sink.calls, ['closed PROXY_ERR_CHANNEL_PASSWORD'])
})

test('destroy from inside received ends it there, and nothing but closed follows', async () => {
  const { sub } = hosted()
  const link = linkFrom(sub)
  const calls: string[] = []
  const place = Buffer.alloc(1)
  const closed = new Promise<void>((resolve) => {
    link.start({
      buffer: () => place,
      received() {
        calls.push('received')
        link.destroy()
        return false
      },
      drained: () => void calls.push('drained'),
      ended: () => void calls.push('ended'),
      closed() {
        calls.push('closed')
        resolve()
      },
    })
  })
  await turn()
  sub.onData(Buffer.from('abc'))
  await closed
  assert.deepEqual(calls, ['received', 'closed'])
})

test('destroy after both directions have ended closes a link whose sink has not taken all', async () => {
  const { sub, link, sink } = witnessed(Buffer.alloc(1))
  await turn()
  sink.more = false
  sub.onData(Buffer.from('abc'))
  sub.onFin()
  link.end()
  await once(sub, 'close')
  assert.deepEqual(sink.calls, ['> a'])
  link.destroy()
  await sink.closing
  assert.deepEqual(sink.calls, ['> a', 'closed undefined'])
})

test('a sub-connection that is over already is closed in a later turn', async () => {
  const { sub } = hosted()
  sub.destroy()
  await once(sub, 'close')
  const sink = new Witness()
  linkFrom(sub).start(sink)
  assert.deepEqual(sink.calls, [])
  await sink.closing
  assert.deepEqual(sink.calls, ['closed undefined'])
})

test('a link that was never started does not end the process', async () => {
  const { sub } = hosted()
  sub.removeAllListeners('error')
  const link: Link = linkFrom(sub)
  sub.onReset(new ProxyError('PROXY_ERR_RESET', 'gone'))
  await once(sub, 'error')
  assert.equal(link.pending, 0)
})
