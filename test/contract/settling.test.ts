import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test } from 'node:test'
import { Frame } from '../../lib/core/frame.ts'
import { CODE } from '../helpers/contract/code.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'
import { rawPeer } from '../helpers/core/raw-peer.ts'

/** Calls that wait for an answer settle, whatever else happens to what they wait for. */

watchForStrays()

test('a dial whose sub-connection somebody destroys before it is answered rejects', async () => {
  await using raw = await rawPeer('acceptor')
  const dial = raw.proxy.dial(CODE)
  await raw.next(Frame.open)
  for (const sub of raw.proxy.subConnections) sub.destroy()
  await soon(assert.rejects(dial, { code: 'PROXY_ERR_RESET' }), 'the dial')
})

test('listens that wait for the peer end with a drain', async () => {
  await using raw = await rawPeer('acceptor')
  const listens = [raw.proxy.accept(CODE), raw.proxy.newPeerListener({ Listen: CODE, Forward: CODE })]
  const over = Promise.all(listens.map((listen) => assert.rejects(listen, { code: 'PROXY_ERR_ABORTED' })))
  const draining = raw.proxy.drain({ signal: AbortSignal.timeout(50) })
  await soon(over, 'the listens')
  await soon(draining, 'the drain')
})

test('a drain leaves no listener behind at the signal that it was given', async () => {
  await using raw = await rawPeer('acceptor')
  const { signal } = new AbortController()
  const draining = raw.proxy.drain({ signal })
  raw.proxy.close()
  await soon(draining, 'the drain')
  assert.equal(getEventListeners(signal, 'abort').length, 0)
})
