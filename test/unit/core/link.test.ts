import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Duplex, PassThrough } from 'node:stream'
import test from 'node:test'
import { isLink, type Link, type LinkSink } from '../../../lib/core/link.ts'
import { linkFrom } from '../../../lib/core/stream-link.ts'
import { ByteStream } from '../../helpers/core/byte-stream.ts'
import { duplexPair } from '../../helpers/core/duplex-pair.ts'

test('bytes pass both ways', async () => {
  const [near, far] = duplexPair()
  const [a, b] = [new ByteStream(linkFrom(near)), new ByteStream(linkFrom(far))]
  a.link.write([Buffer.from('pi'), Buffer.from('ng')])
  b.link.write([Buffer.from('pong')])
  assert.equal((await b.read(4)).toString(), 'ping')
  assert.equal((await a.read(4)).toString(), 'pong')
  a.link.destroy()
})

test('the name of the far side is the one that was given', () => {
  assert.equal(linkFrom(new PassThrough(), '192.0.2.1:5').remote, '192.0.2.1:5')
  assert.equal(linkFrom(new PassThrough()).remote, undefined)
})

test('a link is told from a stream', () => {
  const stream = new PassThrough()
  assert.equal(isLink(stream), false)
  assert.equal(isLink(linkFrom(stream)), true)
})

test('half-close: after the far side has finished, bytes still go the other way', async () => {
  const [near, far] = duplexPair()
  const [a, b] = [new ByteStream(linkFrom(near)), new ByteStream(linkFrom(far))]
  a.link.write([Buffer.from('last')])
  a.link.end()
  assert.equal((await b.rest()).toString(), 'last')
  assert.equal(b.end, 'ended')
  b.link.write([Buffer.from('answer')])
  b.link.end()
  assert.equal((await a.rest()).toString(), 'answer')
})

test('closed is the last call, once both directions have ended', async () => {
  const [near, far] = duplexPair()
  const calls: string[] = []
  const closed = new Promise<void>((resolve) => {
    linkFrom(near).start({
      received: () => true,
      drained: () => calls.push('drained'),
      ended: () => calls.push('ended'),
      closed: (error) => {
        calls.push(`closed ${error}`)
        resolve()
      },
    })
  })
  near.end()
  far.resume().end()
  await closed
  assert.deepEqual(calls, ['ended', 'closed undefined'])
})

test('an error of the stream comes with closed', async () => {
  const stream = new PassThrough()
  const closed = closedOf(linkFrom(stream))
  const error = new Error('broken')
  stream.destroy(error)
  assert.equal(await closed, error)
})

test('a stream that is over already is closed in a later turn', async () => {
  const stream = new PassThrough()
  stream.destroy()
  await once(stream, 'close')
  let called = false
  const closed = closedOf(linkFrom(stream)).then(() => {
    called = true
  })
  assert.equal(called, false)
  await closed
})

function closedOf(link: Link): Promise<Error | undefined> {
  return new Promise((resolve) => {
    link.start({ received: () => true, drained() {}, ended() {}, closed: resolve })
  })
}

test('destroy ends both directions, with the error that the caller gives', async () => {
  const [near, far] = duplexPair()
  far.on('error', () => {})
  const link = linkFrom(near)
  const closed = closedOf(link)
  const error = new Error('enough')
  link.destroy(error)
  assert.equal(await closed, error)
})

test('what is written after end or destroy is dropped', async () => {
  const [near, far] = duplexPair()
  const [a, b] = [linkFrom(near), new ByteStream(linkFrom(far))]
  a.write([Buffer.from('one')])
  a.end()
  a.write([Buffer.from('two')])
  assert.equal((await b.rest()).toString(), 'one')
  a.destroy()
  a.write([Buffer.from('three')])
})

test('bytes land in the buffer of the sink, in pieces where it is short', async () => {
  const [near, far] = duplexPair()
  const place = Buffer.alloc(3)
  const pieces: string[] = []
  const ended = new Promise<void>((resolve) => {
    const sink: LinkSink = {
      buffer: () => place,
      received(bytes) {
        assert.equal(bytes.buffer, place.buffer)
        pieces.push(Buffer.from(bytes).toString())
        return true
      },
      drained() {},
      ended: resolve,
      closed() {},
    }
    linkFrom(near).start(sink)
  })
  far.end('abcdefgh')
  await ended
  assert.deepEqual(pieces, ['abc', 'def', 'gh'])
})

test('a sink that says no gets nothing more until resume, not even the rest of a piece', async () => {
  const [near, far] = duplexPair()
  const link = linkFrom(near)
  const place = Buffer.alloc(3)
  let seen = ''
  let arrived = (): void => {}
  const ended = new Promise<void>((resolve) => {
    link.start({
      buffer: () => place,
      received(bytes) {
        seen += Buffer.from(bytes).toString()
        arrived()
        return false
      },
      drained() {},
      ended: resolve,
      closed() {},
    })
  })
  const next = (): Promise<void> =>
    new Promise((resolve) => {
      arrived = resolve
    })
  const first = next()
  far.write('abcdefgh')
  far.end('ij')
  await first
  assert.equal(seen, 'abc')
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(seen, 'abc')
  link.resume()
  assert.equal(seen, 'abcdef')
  link.resume()
  assert.equal(seen, 'abcdefgh')
  const last = next()
  link.resume()
  await last
  assert.equal(seen, 'abcdefghij')
  link.resume()
  await ended
})

/** A link over a stream that has ended, and what it tells a sink that takes 3 bytes at a time, and no more until resume. */
function endedLink(): { link: Link; calls: string[]; first: Promise<void>; closed: Promise<void> } {
  const stream = new Duplex({ read() {}, write: (_chunk, _encoding, callback) => callback() })
  stream.push('abcdefgh')
  stream.push(null)
  const link = linkFrom(stream)
  const calls: string[] = []
  let told = { first: (): void => {}, closed: (): void => {} }
  const first = new Promise<void>((resolve) => {
    told = { ...told, first: resolve }
  })
  const closed = new Promise<void>((resolve) => {
    told = { ...told, closed: resolve }
  })
  link.start({
    buffer: () => Buffer.alloc(3),
    received(bytes) {
      calls.push(`> ${Buffer.from(bytes)}`)
      told.first()
      return false
    },
    drained() {},
    ended: () => void calls.push('ended'),
    closed(error) {
      calls.push(`closed ${error}`)
      told.closed()
    },
  })
  return { link, calls, first, closed }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test('the end of a stream, and its close, come after what the sink has not taken yet', async () => {
  const { link, calls, first, closed } = endedLink()
  await first
  link.end()
  await turn()
  await turn()
  assert.deepEqual(calls, ['> abc'])
  link.resume()
  assert.deepEqual(calls, ['> abc', '> def'])
  link.resume()
  link.resume()
  await closed
  assert.deepEqual(calls, ['> abc', '> def', '> gh', 'ended', 'closed undefined'])
})

test('destroy drops what the sink has not taken, and closes the link, before the stream is closed or after it', async () => {
  for (const whole of [false, true]) {
    const { link, calls, first, closed } = endedLink()
    await first
    if (whole) link.end()
    await turn()
    await turn()
    link.destroy()
    link.resume()
    await closed
    assert.deepEqual(calls, ['> abc', 'closed undefined'])
  }
})

test('pending counts what the stream has not taken, and drained comes once it is 0', async () => {
  let take: () => void = () => {}
  const stream = new Duplex({
    read() {},
    write(_chunk, _encoding, callback) {
      take = callback
    },
  })
  let drained = 0
  const link = linkFrom(stream)
  link.start({ received: () => true, drained: () => drained++, ended() {}, closed() {} })
  link.write([Buffer.alloc(10), Buffer.alloc(5)])
  assert.equal(link.pending, 15)
  take()
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(link.pending, 5)
  assert.equal(drained, 0)
  take()
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(link.pending, 0)
  assert.equal(drained, 1)
  stream.destroy()
})

test('a write that the stream takes at once leaves nothing to drain', async () => {
  const stream = new Duplex({
    read() {},
    write(_chunk, _encoding, callback) {
      callback()
    },
  })
  let drained = 0
  const link = linkFrom(stream)
  link.start({ received: () => true, drained: () => drained++, ended() {}, closed() {} })
  link.write([Buffer.alloc(10)])
  assert.equal(link.pending, 0)
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(drained, 0)
  stream.destroy()
})
