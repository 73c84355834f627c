import assert from 'node:assert/strict'
import { getEventListeners, once } from 'node:events'
import { test } from 'node:test'
import { type DomainPlugin, tcp } from '../../lib/index.ts'
import { CODE } from '../helpers/contract/code.ts'
import { dialProgram, echo, nobodyListens, readAll } from '../helpers/contract/programs.ts'
import { connectPair, everyWay, MEMORY } from '../helpers/contract/proxies.ts'
import { nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'

/** AbortSignals: before, during and after. What is given up leaves nothing behind. */

const ANY_PORT = { Domain: 'tcp', Addr: '127.0.0.1:0' }
const NEVER = { Domain: 'never', Addr: '' }
const both = { near: { domains: [tcp()] }, far: { domains: [tcp()] } }

watchForStrays()

/** A user of the library sees the reason of the signal, or an error of ours that says as much. */
const aborted = (error: Error & { code?: unknown }): true => {
  assert.ok(error.name === 'AbortError' || error.code === 'PROXY_ERR_ABORTED', String(error))
  return true
}

/** A domain whose listens and dials take forever; `begun` resolves with the signal that shall end them. */
function never(): DomainPlugin & { begun(): Promise<AbortSignal> } {
  const waiting: ((signal: AbortSignal) => void)[] = []
  const hang = (signal: AbortSignal): Promise<never> =>
    new Promise((_, reject) => {
      signal.addEventListener('abort', () => reject(new Error('given up')))
      for (const tell of waiting.splice(0)) tell(signal)
    })
  return {
    name: 'never',
    listen: (_at, { signal }) => hang(signal),
    dial: (_to, { signal }) => hang(signal),
    begun: () => new Promise((resolve) => waiting.push(resolve)),
  }
}

everyWay('a signal that has fired already stops everything before it begins', both, async ({ near, far }) => {
  await using target = await echo()
  const options = { signal: AbortSignal.abort() }
  const mapping = { Listen: ANY_PORT, Forward: target.endpoint }
  await assert.rejects(near.newListener(mapping, options), aborted)
  await assert.rejects(near.newPeerListener(mapping, options), aborted)
  await assert.rejects(near.accept(ANY_PORT, options), aborted)
  await assert.rejects(near.dial(target.endpoint, options), aborted)
  await assert.rejects(near.open({ to: target.endpoint }, options), aborted)
  assert.equal(target.sockets.size, 0)
  await nothingLeft(near, far)
})

test('a dial that is given up ends at the far side too', async () => {
  for (const [near, far] of [
    ['dialling', 'accepting'],
    ['accepting', 'dialling'],
  ] as const) {
    const domain = never()
    await using pair = await connectPair(MEMORY, { [far]: { domains: [domain] } })
    const stop = new AbortController()
    const begun = domain.begun()
    const dialling = pair[near].dial(NEVER, stop)
    dialling.catch(() => {})
    const there = await begun
    stop.abort()
    await assert.rejects(soon(dialling, 'the dial'), aborted)
    if (!there.aborted) await soon(once(there, 'abort'), 'the far side gives up')
    await nothingLeft(pair.dialling, pair.accepting)
    assert.equal(getEventListeners(stop.signal, 'abort').length, 0)
  }
})

test('an open that is given up is PROXY_ERR_ABORTED at the sub-connection', async () => {
  const domain = never()
  await using pair = await connectPair(MEMORY, { accepting: { domains: [domain] } })
  const stop = new AbortController()
  const sub = await pair.dialling.open({ to: NEVER }, stop)
  const failed = once(sub, 'error')
  stop.abort()
  assert.equal((await failed)[0].code, 'PROXY_ERR_ABORTED')
  await nothingLeft(pair.dialling, pair.accepting)
})

test('a listen that is given up ends at the far side too', async () => {
  const domain = never()
  await using pair = await connectPair(MEMORY, { accepting: { domains: [domain] } })
  for (const listen of [
    (options: AbortController) => pair.dialling.accept(NEVER, options),
    (options: AbortController) => pair.dialling.newPeerListener({ Listen: NEVER, Forward: ANY_PORT }, options),
  ]) {
    const stop = new AbortController()
    const begun = domain.begun()
    const listening = listen(stop)
    listening.catch(() => {})
    const there = await begun
    stop.abort()
    await assert.rejects(soon(listening, 'the listen'), aborted)
    if (!there.aborted) await soon(once(there, 'abort'), 'the far side gives up')
    assert.equal(getEventListeners(stop.signal, 'abort').length, 0)
  }
})

test('a listen of this side that is given up ends', async () => {
  const domain = never()
  await using pair = await connectPair(MEMORY, { dialling: { domains: [domain] } })
  const stop = new AbortController()
  const begun = domain.begun()
  const listening = pair.dialling.newListener({ Listen: NEVER, Forward: ANY_PORT }, stop)
  listening.catch(() => {})
  await begun
  stop.abort()
  await assert.rejects(soon(listening, 'the listen'))
})

everyWay('a signal that fires later closes the listener', both, async ({ near }) => {
  await using target = await echo()
  const mapping = { Listen: ANY_PORT, Forward: target.endpoint }
  const stop = new AbortController()
  const listeners = [
    await near.newListener(mapping, stop),
    await near.newPeerListener(mapping, stop),
    await near.accept(ANY_PORT, stop),
  ]
  stop.abort()
  for (const { bound } of listeners) await soon(nobodyListens(bound), 'the port is free')
})

everyWay('a signal that fires later does not touch what is connected', both, async ({ near }) => {
  await using target = await echo()
  const stop = new AbortController()
  const dialled = await near.dial(target.endpoint, stop)
  const listener = await near.newListener({ Listen: ANY_PORT, Forward: target.endpoint }, stop)
  const socket = await dialProgram(listener.bound)
  socket.write('p')
  await once(socket, 'data')
  stop.abort()
  dialled.end('still here')
  assert.equal((await readAll(dialled)).toString(), 'still here')
  socket.end('ing')
  assert.equal((await readAll(socket)).toString(), 'ing')
})

everyWay('nothing stays on a signal that outlives what it was for', both, async ({ near, far }) => {
  await using target = await echo()
  const stop = new AbortController()
  const mapping = { Listen: ANY_PORT, Forward: target.endpoint }
  const left = (): number => getEventListeners(stop.signal, 'abort').length
  await (await near.newListener(mapping, stop)).close()
  assert.equal(left(), 0, 'newListener')
  const sub = await near.dial(target.endpoint, stop)
  assert.equal(left(), 0, 'dial')
  sub.destroy()
  await (await near.newPeerListener(mapping, stop)).close()
  assert.equal(left(), 0, 'newPeerListener')
  await (await near.accept(ANY_PORT, stop)).close()
  assert.equal(left(), 0, 'accept')
  await nothingLeft(near, far)
})

everyWay('nothing stays on a signal that outlives the Proxy', both, async ({ near }) => {
  await using target = await echo()
  const stop = new AbortController()
  const mapping = { Listen: ANY_PORT, Forward: target.endpoint }
  await near.newListener(mapping, stop)
  await near.newPeerListener(mapping, stop)
  near.close()
  await near.closed
  assert.equal(getEventListeners(stop.signal, 'abort').length, 0)
})

everyWay('the signal of a drain ends the patience with what is open', both, async ({ near, far, farCode }) => {
  const incoming = await near.accept(CODE)
  const sub = await farCode.open()
  await once(sub, 'connect')
  const stop = new AbortController()
  const drained = near.drain(stop)
  stop.abort()
  await soon(drained, 'the drain')
  assert.equal(near.state, 'closed')
  await soon(far.closed, 'the far side')
  await incoming.close()
})
