import assert from 'node:assert/strict'
import { once } from 'node:events'
import { buffer, text } from 'node:stream/consumers'
import { test } from 'node:test'
import { innerSockets } from '../../../lib/transports/inner-socket.ts'
import { readAll } from '../../helpers/contract/programs.ts'
import { soon } from '../../helpers/contract/strays.ts'

test('what is written at one end is read at the other, in both directions, and ends one by one', async () => {
  const [one, other] = innerSockets()
  one.write('a')
  one.write('b')
  one.end('c')
  // An iterator would destroy it.
  assert.equal(String(await soon(readAll(other), 'what one says')), 'abc')
  assert.equal(other.destroyed, false)
  other.end('back')
  assert.equal(await soon(text(one), 'what the other says'), 'back')
  await Promise.all([one, other].map((end) => end.closed || once(end, 'close')))
})

test('nothing is read while it is being written', async () => {
  const [one, other] = innerSockets()
  let read = false
  other.on('data', () => {
    read = true
  })
  one.write('x')
  assert.equal(read, false)
  await soon(once(other, 'data'), 'a byte')
  one.destroy()
})

test('an end that nobody reads holds the other back, and what waits is counted like that of a socket', async () => {
  const [one, other] = innerSockets()
  const block = Buffer.alloc(65_536)
  let written = 0
  while (written < 100 && one.write(block)) written++
  await new Promise((resolve) => setImmediate(resolve))
  assert.ok(written < 10)
  assert.ok(one.writableLength > 0)
  assert.equal(one.bytesWritten, (written + 1) * block.length)
  assert.ok(one.bytesWritten - one.writableLength < one.bytesWritten)
  const all = buffer(other)
  one.end()
  assert.equal((await soon(all, 'the rest')).length, (written + 1) * block.length)
  assert.equal(one.bytesWritten - one.writableLength, (written + 1) * block.length)
})

test('what an end has said before it is gone is still read, and then the other one is gone, too', async () => {
  const [one, other] = innerSockets()
  one.write('last words')
  one.destroy(new Error('gone'))
  one.on('error', () => {})
  assert.equal(await soon(text(other), 'the last words'), 'last words')
  if (!other.closed) await soon(once(other, 'close'), 'the end')
})

test('where nobody reads, what an end has said is lost with it', async () => {
  const [one, other] = innerSockets()
  while (one.write(Buffer.alloc(65_536)));
  await new Promise((resolve) => setImmediate(resolve))
  one.destroy()
  await soon(once(other, 'close'), 'the end')
})

test('what is written to an end that is gone is dropped, and told as written', async () => {
  const [one, other] = innerSockets()
  other.destroy()
  one.on('error', () => {})
  await new Promise<void>((resolve) => {
    one.write(Buffer.alloc(1_000_000), () => resolve())
  })
  one.resume()
  if (!one.closed) await soon(once(one, 'close'), 'the end')
})

test('destroySoon lets go when all is written', async () => {
  const [one, other] = innerSockets()
  one.write(Buffer.alloc(300_000))
  one.destroySoon()
  assert.equal((await soon(buffer(other), 'all of it')).length, 300_000)
  if (!one.closed) await soon(once(one, 'close'), 'the end')
})
