import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { DomainPlugin, ListenContext, Listener, SubConnection } from '../../../lib/core/index.ts'
import { localPair } from '../../../lib/core/local-pair.ts'
import { type UdpOptions, udp } from '../../../lib/domains/udp.ts'
import { type DatagramProgram, datagramServer, visitor } from '../../helpers/contract/datagrams.ts'
import { eventually, watchForStrays } from '../../helpers/contract/strays.ts'

watchForStrays()

type Open = ListenContext['open']

/** Listens with the given options; `open` decides what becomes of each flow. */
async function listening(open: Open, options?: UdpOptions): Promise<Listener> {
  const { listen } = udp(options)
  assert.ok(listen)
  const signal = new AbortController().signal
  return await listen({ Domain: 'udp', Addr: '127.0.0.1:0' }, { signal, open })
}

/** The far ends of the flows that were opened, which read frames as text. */
function farEnds() {
  const ends: { readonly far: SubConnection; readonly from: string | undefined; text: string }[] = []
  const open: Open = async ({ from } = {}) => {
    const [near, far] = localPair(from)
    const end = { far, from, text: '' }
    far.on('data', (bytes: Buffer) => {
      end.text += bytes.toString('latin1')
    })
    far.accepted()
    near.accepted()
    ends.push(end)
    return near
  }
  return { ends, open }
}

async function closeAll(...users: readonly DatagramProgram[]): Promise<void> {
  for (const user of users) await user[Symbol.asyncDispose]()
}

function resolver(plugin: DomainPlugin = udp()) {
  return (Addr: string) => plugin.resolve?.({ Domain: 'udp', Addr }, {})
}

test('carries datagrams', () => {
  assert.equal(udp().name, 'udp')
  assert.equal(udp().carries, 'datagrams')
})

test('an empty host to forward to is 127.0.0.1, an address is itself, a name is looked up', async () => {
  const resolve = resolver()
  assert.deepEqual(await resolve(':53'), ['127.0.0.1'])
  assert.deepEqual(await resolve('[2001:db8::1]:53'), ['2001:db8::1'])
  assert.ok((await resolve('localhost:53'))?.some((address) => address === '127.0.0.1' || address === '::1'))
  await assert.rejects(async () => await resolve('nowhere.invalid:53'), {
    code: 'PROXY_ERR_DIAL_FAILED',
    message: /^the name in nowhere\.invalid:53 /,
  })
  await assert.rejects(async () => await resolve('no port'), { code: 'PROXY_ERR_ADDRESS' })
})

test('a dial that is given up leaves no socket', async () => {
  const { dial } = udp()
  assert.ok(dial)
  const before = process.getActiveResourcesInfo().filter((name) => name === 'UDPWrap').length
  const to = { Domain: 'udp', Addr: '127.0.0.1:9' }
  await assert.rejects(dial(to, { signal: AbortSignal.abort(), addresses: ['127.0.0.1'] }), {
    code: 'PROXY_ERR_ABORTED',
  })
  const left = (): number => process.getActiveResourcesInfo().filter((name) => name === 'UDPWrap').length
  await eventually(() => left() === before, 'the socket is closed')
})

test('an address that cannot be reached is passed over', async () => {
  const { dial } = udp()
  await using target = await datagramServer()
  const port = target.socket.address().port
  const to = { Domain: 'udp', Addr: `name:${port}` }
  // Broadcasts are not for anybody who did not ask for them.
  const link = await dial?.(to, {
    signal: new AbortController().signal,
    addresses: ['255.255.255.255', '127.0.0.1'],
  })
  assert.ok(link && 'start' in link)
  assert.equal(link.remote, `127.0.0.1:${port}`)
  link.write([Buffer.from('00026869', 'hex')])
  assert.equal(await target.text(), 'hi')
  link.destroy()
  await assert.rejects(
    async () => await dial?.(to, { signal: new AbortController().signal, addresses: ['255.255.255.255'] }),
    { code: 'PROXY_ERR_DIAL_FAILED', message: `permission denied for name:${port}` },
  )
})

test('what comes while a flow is being opened waits, and the oldest goes when it is too much', async () => {
  const { ends, open } = farEnds()
  let go: () => void = () => {}
  const gate = new Promise<void>((resolve) => {
    go = resolve
  })
  await using listener = await listening(async (options) => {
    await gate
    return await open(options)
  })
  await using user = await visitor(listener.bound)
  for (let n = 0; n < 100; n++) user.send(`${n};`)
  await sleep(30)
  go()
  const kept = Array.from({ length: 64 }, (_, n) => `${n + 36};`)
  const frames = kept.map((text) => `\0${String.fromCharCode(text.length)}${text}`).join('')
  await eventually(() => ends[0]?.text === frames, 'the newest 64')
  assert.equal(ends.length, 1)
  assert.equal(ends[0]?.from, user.endpoint.Addr)
})

test('a flow that had to go while it was being opened is closed when it is open', async () => {
  const { ends, open } = farEnds()
  const gates: (() => void)[] = []
  await using listener = await listening(
    async (options) => {
      await new Promise<void>((resolve) => gates.push(resolve))
      return await open(options)
    },
    { flows: 1 },
  )
  const [one, two] = [await visitor(listener.bound), await visitor(listener.bound)]
  one.send('one')
  await eventually(() => gates.length === 1, 'the first')
  two.send('two')
  await eventually(() => gates.length === 2, 'the second')
  for (const go of gates) go()
  await eventually(() => ends.some(({ text }) => text === '\0\u0003two'), 'the second one lives')
  await eventually(() => ends.filter(({ far }) => far.destroyed).length === 1, 'the first one is closed')
  assert.equal(ends.find(({ far }) => far.destroyed)?.text, '')
  await closeAll(one, two)
})

test('a listener that is closed while flows are being opened leaves none', async () => {
  const { ends, open } = farEnds()
  let go: () => void = () => {}
  const gate = new Promise<void>((resolve) => {
    go = resolve
  })
  let asked = 0
  const listener = await listening(async (options) => {
    asked++
    await gate
    return await open(options)
  })
  await using user = await visitor(listener.bound)
  user.send('hello')
  await eventually(() => asked === 1, 'the flow')
  await listener.close()
  go()
  await eventually(() => ends[0]?.far.destroyed === true, 'it is closed')
})

test('while many flows are being opened strangers are not heard', async () => {
  let asked = 0
  await using listener = await listening(async () => {
    asked++
    return await new Promise(() => {})
  })
  const users = await Promise.all(Array.from({ length: 300 }, () => visitor(listener.bound)))
  for (const user of users) user.send('hello')
  await eventually(() => asked === 256, '256 of them')
  for (const user of users) user.send('hello')
  await sleep(20)
  assert.equal(asked, 256)
  await closeAll(...users)
})

test('after a refusal nothing is opened for a moment, and then again', async () => {
  const { ends, open } = farEnds()
  let asked = 0
  await using listener = await listening(async (options) => {
    if (++asked === 1) throw new Error('refused')
    return await open(options)
  })
  await using user = await visitor(listener.bound)
  for (let n = 0; n < 20; n++) user.send('lost')
  await sleep(20)
  for (let n = 0; n < 20; n++) user.send('lost')
  assert.equal(asked, 1)
  await sleep(110)
  user.send('heard')
  await eventually(() => ends[0]?.text === '\0\u0005heard', 'the next flow')
  assert.equal(asked, 2)
})

test('a far side that never ends its half is not waited for when the listener closes', async () => {
  const { ends, open } = farEnds()
  const listener = await listening(open, { idleTimeout: 20 })
  await using user = await visitor(listener.bound)
  user.send('hello')
  await eventually(() => ends[0]?.far.readableEnded === true, 'the flow is told to end')
  assert.equal(ends[0]?.far.destroyed, false)
  await listener.close()
  await eventually(() => ends[0]?.far.destroyed === true, 'the end')
})

test('a late answer in a flow that was told to end does not take the place of the next one', async () => {
  const { ends, open } = farEnds()
  await using listener = await listening(open, { idleTimeout: 100 })
  await using user = await visitor(listener.bound)
  user.send('one')
  await eventually(() => ends[0]?.far.readableEnded === true, 'the first flow is told to end')
  user.send('two')
  await eventually(() => ends[1]?.text === '\0\u0003two', 'the second flow')
  ends[0]?.far.write(Buffer.from('00046c617465', 'hex'))
  assert.equal(await user.text(), 'late')
  user.send('three')
  await eventually(() => ends[1]?.text.endsWith('three') === true, 'it is still the second one that is used')
  assert.equal(ends.length, 2)
})
