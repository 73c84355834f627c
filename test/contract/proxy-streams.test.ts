import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Duplex, PassThrough, Transform } from 'node:stream'
import { type DomainPlugin, type SubConnection, tcp } from '../../lib/index.ts'
import { codePairs, endOf } from '../helpers/contract/code.ts'
import { dialProgram, ending, pattern, program, readAll, reset, sha256 } from '../helpers/contract/programs.ts'
import { everyWay, MEMORY, TCP } from '../helpers/contract/proxies.ts'
import { count, nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'

/** What a sub-connection carries: bytes, half-closes and resets, from one local program to another. */

const ANY_PORT = { Domain: 'tcp', Addr: '127.0.0.1:0' }
const both = { near: { domains: [tcp()] }, far: { domains: [tcp()] } }

watchForStrays()

everyWay('the side that connects may finish first, and is answered', both, async ({ near, far }) => {
  await using target = await program()
  const listener = await near.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  const client = await dialProgram(listener.bound)
  client.end('question')
  const server = await target.accepted()
  assert.equal((await readAll(server)).toString(), 'question')
  server.write('an')
  server.end('swer')
  assert.equal((await readAll(client)).toString(), 'answer')
  await nothingLeft(near, far)
})

everyWay('the side that is connected to may finish first, and is written to', both, async ({ near, far }) => {
  await using target = await program()
  const listener = await near.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  const client = await dialProgram(listener.bound)
  const server = await target.accepted()
  server.end('greeting')
  assert.equal((await readAll(client)).toString(), 'greeting')
  client.write('and ')
  client.end('more')
  assert.equal((await readAll(server)).toString(), 'and more')
  await nothingLeft(near, far)
})

everyWay('large transfers arrive whole in both directions at once', both, async ({ near, far, kind }) => {
  await using target = await program()
  const listener = await near.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  const [up, down] = [pattern(kind.large, 1), pattern(kind.large, 2)]
  const client = await dialProgram(listener.bound)
  const server = await target.accepted()
  client.end(up)
  server.end(down)
  const [atServer, atClient] = await Promise.all([readAll(server), readAll(client)])
  assert.equal(sha256(atServer), sha256(up))
  assert.equal(sha256(atClient), sha256(down))
  await nothingLeft(near, far)
})

everyWay('a large transfer to a program that reads late arrives whole', both, async ({ near, far, kind }) => {
  await using target = await program()
  const listener = await near.newPeerListener({ Listen: ANY_PORT, Forward: target.endpoint })
  const sent = pattern(kind.large, 3)
  const client = await dialProgram(listener.bound)
  client.end(sent)
  const server = await target.accepted()
  await new Promise((resolve) => setTimeout(resolve, 20))
  assert.equal(sha256(await readAll(server)), sha256(sent))
  server.end()
  await readAll(client)
  await nothingLeft(near, far)
})

/** Some systems tell a program of an end now and then, where a reset came: three times in a row is no accident. */
async function assertReset(attempt: () => Promise<'end' | 'reset'>): Promise<void> {
  const seen: string[] = []
  while (seen.length < 3 && !seen.includes('reset')) seen.push(await soon(attempt(), 'the reset'))
  assert.equal(seen.at(-1), 'reset')
}

for (const who of ['client', 'server'] as const) {
  everyWay(`a connection that the ${who} resets arrives as a reset`, both, async ({ near, far }) => {
    await using target = await program()
    const listener = await near.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
    await assertReset(async () => {
      const client = await dialProgram(listener.bound)
      const server = await target.accepted()
      client.write('x')
      await once(server, 'data')
      const [resets, hears] = who === 'client' ? [client, server] : [server, client]
      const over = ending(hears)
      reset(resets)
      return await over
    })
    await nothingLeft(near, far)
  })
}

everyWay('a reset behind a half-close arrives as a reset', both, async ({ near, far }) => {
  await using target = await program()
  const listener = await near.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  await assertReset(async () => {
    const client = await dialProgram(listener.bound)
    const server = await target.accepted()
    client.end('x')
    await readAll(server)
    const over = ending(client)
    reset(server)
    return await over
  })
  await nothingLeft(near, far)
})

everyWay('a reset by code reaches the program at the far side', both, async ({ near, far }) => {
  await using target = await program()
  await assertReset(async () => {
    const sub = await near.dial(target.endpoint)
    sub.on('error', () => {})
    const over = ending(await target.accepted())
    sub.destroy(new Error('enough'))
    return await over
  })
  await nothingLeft(near, far)
})

everyWay('a sub-connection that code destroys is reset at the far side, with the reason', {}, async (stage) => {
  const { near, far, farCode } = stage
  const pairs = await codePairs(near, farCode)
  const { opened, accepted } = await pairs.next()
  accepted.destroy(new Error('out of paper'))
  const reason = await endOf(opened)
  assert.equal(reason?.code, 'PROXY_ERR_RESET')
  assert.equal(reason.message, 'out of paper')
  await nothingLeft(near, far)
})

everyWay('a reader that throws ends its own sub-connection, and no other', {}, async ({ near, far, farCode }) => {
  const pairs = await codePairs(near, farCode)
  const [broken, well] = [await pairs.next(), await pairs.next()]
  const bug = new Error('a bug of the reader')
  broken.accepted.on('data', () => {
    throw bug
  })
  const failed = endOf(broken.accepted)
  const told = endOf(broken.opened)
  broken.opened.write('any')
  assert.deepEqual([(await failed)?.code, (await failed)?.cause], ['PROXY_ERR_INTERNAL', bug])
  assert.equal((await told)?.code, 'PROXY_ERR_INTERNAL')
  well.opened.end('goes on')
  assert.equal((await readAll(well.accepted)).toString(), 'goes on')
  well.accepted.end()
  well.opened.resume()
  await nothingLeft(near, far)
  assert.equal(near.state, 'connected')
})

everyWay('both ends may reset at once', {}, async ({ near, far, farCode }) => {
  const pairs = await codePairs(near, farCode)
  const { opened, accepted } = await pairs.next()
  opened.destroy()
  accepted.destroy()
  await nothingLeft(near, far)
  assert.equal(near.state, 'connected')
})

everyWay('a fin and a reset may cross', {}, async ({ near, far, farCode }) => {
  const pairs = await codePairs(near, farCode)
  for (const first of ['opened', 'accepted'] as const) {
    const pair = await pairs.next()
    const other = first === 'opened' ? pair.accepted : pair.opened
    pair[first].end('bye')
    other.destroy()
    pair[first].resume()
    await Promise.all([endOf(pair.opened), endOf(pair.accepted)])
  }
  await nothingLeft(near, far)
  assert.equal(near.state, 'connected')
})

everyWay('both ends may finish and then reset, and ids are free again', {}, async ({ near, far, farCode }) => {
  const pairs = await codePairs(near, farCode)
  const { opened, accepted } = await pairs.next()
  opened.end('unread')
  accepted.end('unread')
  await Promise.all([once(opened, 'finish'), once(accepted, 'finish')])
  opened.destroy()
  accepted.destroy()
  await nothingLeft(near, far)
  assert.equal(near.state, 'connected')
})

/** Ways to read, from the most direct to the laziest. Windows shrink with the number of idle neighbours. */
const READERS: Record<string, (sub: SubConnection) => Promise<Buffer>> = {
  'for await': async (sub) => {
    const chunks: Buffer[] = []
    // Left to itself, the iteration destroys a Duplex whose other direction is still open.
    for await (const chunk of sub.iterator({ destroyOnReturn: false })) chunks.push(chunk as Buffer)
    return Buffer.concat(chunks)
  },
  'data events with pauses': (sub) => {
    sub.on('data', () => {
      sub.pause()
      setImmediate(() => sub.resume())
    })
    return readAll(sub)
  },
  'data events, late': async (sub) => {
    await new Promise((resolve) => setTimeout(resolve, 20))
    return await readAll(sub)
  },
  'readable and read(100)': (sub) =>
    new Promise((resolve, reject) => {
      const chunks: Buffer[] = []
      sub.on('readable', () => {
        for (let chunk = sub.read(100); chunk !== null || sub.readableLength > 0; chunk = sub.read(100)) {
          if (chunk === null) chunk = sub.read()
          if (chunk === null) break
          chunks.push(chunk as Buffer)
        }
      })
      sub.on('end', () => resolve(Buffer.concat(chunks)))
      sub.on('close', () => reject(new Error('closed before the end')))
    }),
  'pipe into a slow stream': (sub) => {
    const slow = new Transform({
      highWaterMark: 1024,
      transform(chunk, _encoding, callback) {
        setImmediate(callback, null, chunk)
      },
    })
    return readAll(sub.pipe(slow).pipe(new PassThrough()))
  },
}

for (const [how, read] of Object.entries(READERS)) {
  for (const neighbours of [0, 40, 400]) {
    const name = `a reader with ${how} gets all, beside ${neighbours} idle sub-connections`
    everyWay(name, { links: [MEMORY, TCP] }, async ({ near, far, farCode }) => {
      const pairs = await codePairs(near, farCode)
      for (let turn = 0; turn < neighbours; turn++) await pairs.next()
      const { opened, accepted } = await pairs.next()
      const sent = pattern(1024 * 1024, 4)
      opened.end(sent)
      const received = await soon(read(accepted), 'a megabyte', 3000)
      assert.equal(sha256(received), sha256(sent))
      accepted.end()
      opened.resume()
      await endOf(accepted)
      assert.equal(count(near), neighbours)
      assert.equal(far.state, 'connected')
    })
  }
}

/** Like TLS, or a compressor: what is written is only out when `final` has called back. */
class SlowToFinish extends Duplex {
  received = ''
  finishedInOrder = false
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: string, callback: () => void): void {
    this.received += chunk.toString()
    callback()
  }
  override _final(callback: () => void): void {
    setTimeout(() => {
      this.finishedInOrder = !this.destroyed
      callback()
    }, 20)
  }
}

const dialled: SlowToFinish[] = []
const slow: DomainPlugin = {
  name: 'slow',
  async dial() {
    const duplex = new SlowToFinish()
    dialled.push(duplex)
    return duplex
  },
}

everyWay('a Duplex of a domain may take its time to finish', { far: { domains: [slow] } }, async ({ near, far }) => {
  const sub = await near.dial({ Domain: 'slow', Addr: '' })
  const duplex = dialled.pop()
  assert.ok(duplex)
  const closed = new Promise((resolve) => duplex.on('close', resolve))
  duplex.push('mine is over')
  duplex.push(null)
  assert.equal((await readAll(sub)).toString(), 'mine is over')
  sub.end('so is mine')
  await closed
  assert.equal(duplex.received, 'so is mine')
  assert.equal(duplex.finishedInOrder, true)
  await nothingLeft(near, far)
})
