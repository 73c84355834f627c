import assert from 'node:assert/strict'
import { once } from 'node:events'
import { diagnostics, type ProxyError, type SubConnection, tcp } from '../../lib/index.ts'
import { CODE, endOf } from '../helpers/contract/code.ts'
import { begin, dialProgram, echo, ending, nobodyListens, program, readAll } from '../helpers/contract/programs.ts'
import { everyWay } from '../helpers/contract/proxies.ts'
import { nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'

/** The contract of `Proxy`: who listens, who forwards, who answers. */

const ANY_PORT = { Domain: 'tcp', Addr: '127.0.0.1:0' }
const both = { near: { domains: [tcp()] }, far: { domains: [tcp()] } }

watchForStrays()

everyWay('newListener listens here and has the peer forward', both, async ({ near, far }) => {
  await using target = await echo()
  const listener = await near.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  assert.match(listener.bound.Addr, /^127\.0\.0\.1:[1-9]\d*$/)
  const socket = await dialProgram(listener.bound)
  socket.end('ping')
  assert.equal((await readAll(socket)).toString(), 'ping')
  await nothingLeft(near, far)
  await listener.close()
  await nobodyListens(listener.bound)
})

everyWay('newPeerListener has the peer listen and forwards here', both, async ({ near, far }) => {
  await using target = await echo()
  const listener = await near.newPeerListener({ Listen: ANY_PORT, Forward: target.endpoint })
  const socket = await dialProgram(listener.bound)
  socket.end('ping')
  assert.equal((await readAll(socket)).toString(), 'ping')
  await nothingLeft(near, far)
  await listener.close()
  await soon(nobodyListens(listener.bound), 'the port is free')
})

everyWay(
  'newPeerListener forwards even what policy would deny the peer, and never tells where to',
  {
    near: {
      domains: [tcp()],
      policy: {
        dial() {
          throw new Error('nobody is asked about mappings of this side')
        },
        listen() {},
      },
    },
    far: { domains: [tcp()] },
  },
  async ({ near }) => {
    await using target = await echo()
    const listener = await near.newPeerListener({ Listen: ANY_PORT, Forward: target.endpoint })
    const socket = await dialProgram(listener.bound)
    socket.end('ping')
    assert.equal((await readAll(socket)).toString(), 'ping')
  },
)

everyWay('accept lets code answer, and names who came in', both, async ({ near, far }) => {
  const incoming = await near.accept(ANY_PORT)
  const answering = (async () => {
    const remotes: (string | undefined)[] = []
    for await (const sub of incoming) {
      remotes.push(sub.remote)
      sub.end(`hello ${remotes.length}`)
      sub.resume()
      if (remotes.length === 3) break
    }
    return remotes
  })()
  const locals: string[] = []
  for (let turn = 1; turn <= 3; turn++) {
    const socket = await dialProgram(incoming.bound)
    locals.push(`${socket.localAddress}:${socket.localPort}`)
    socket.end()
    assert.equal((await readAll(socket)).toString(), `hello ${turn}`)
  }
  assert.deepEqual(await soon(answering, 'the iteration ends with break'), locals)
  await nothingLeft(near, far)
})

everyWay('leaving the iteration of accept closes the listener', both, async ({ near }) => {
  const incoming = await near.accept(ANY_PORT)
  const first = dialProgram(incoming.bound)
  for await (const sub of incoming) {
    sub.destroy()
    break
  }
  ;(await first).destroy()
  await soon(nobodyListens(incoming.bound), 'the port is free')
})

everyWay('close of an accept ends an iteration that waits', both, async ({ near }) => {
  const incoming = await near.accept(ANY_PORT)
  const next = incoming[Symbol.asyncIterator]().next()
  await incoming.close()
  assert.deepEqual(await soon(next, 'the iteration'), { done: true, value: undefined })
})

everyWay('what came in and was never taken is reset when the accept closes', both, async ({ near, far }) => {
  const incoming = await near.accept(ANY_PORT)
  const socket = await dialProgram(incoming.bound)
  const over = ending(socket)
  await once(near, 'open')
  await incoming.close()
  assert.equal(await soon(over, 'the connection'), 'reset')
  await nothingLeft(near, far)
})

everyWay('dial resolves when the far side has connected', both, async ({ near, far }) => {
  await using target = await echo()
  const sub = await near.dial(target.endpoint)
  assert.equal(sub.connecting, false)
  assert.equal(target.sockets.size, 1)
  sub.end('ping')
  assert.equal((await readAll(sub)).toString(), 'ping')
  await nothingLeft(near, far)
})

everyWay('open resolves at once, and what is written early arrives', both, async ({ near, far }) => {
  await using target = await echo()
  const sub = await near.open({ to: target.endpoint })
  assert.equal(sub.connecting, true)
  sub.end('early')
  assert.equal((await readAll(sub)).toString(), 'early')
  await nothingLeft(near, far)
})

everyWay('a refused dial reaches the caller and the events of both sides', both, async ({ near, far }) => {
  const gone = await program()
  await gone[Symbol.asyncDispose]()
  const told = [once(near, 'refused'), once(far, 'refused')] as Promise<[ProxyError]>[]
  await assert.rejects(near.dial(gone.endpoint), {
    name: 'ProxyError',
    code: 'PROXY_ERR_DIAL_FAILED',
    message: `nothing listens on ${gone.endpoint.Addr}`,
  })
  for (const [error] of await Promise.all(told)) assert.equal(error.code, 'PROXY_ERR_DIAL_FAILED')
  await nothingLeft(near, far)
})

everyWay('a refused dial reaches the connecting program as a close', both, async ({ near, far }) => {
  const gone = await program()
  await gone[Symbol.asyncDispose]()
  const listeners = [
    await near.newListener({ Listen: ANY_PORT, Forward: gone.endpoint }),
    await near.newPeerListener({ Listen: ANY_PORT, Forward: gone.endpoint }),
  ]
  for (const { bound } of listeners) {
    const socket = begin(bound)
    socket.write('hello?')
    assert.equal(await soon(ending(socket), 'the close'), 'reset')
  }
  await nothingLeft(near, far)
})

everyWay('a domain that the peer does not have is PROXY_ERR_UNKNOWN_DOMAIN', both, async ({ near, far }) => {
  const nowhere = { Domain: 'nowhere', Addr: 'x' }
  const unknown = { code: 'PROXY_ERR_UNKNOWN_DOMAIN' }
  await assert.rejects(near.dial(nowhere), unknown)
  await assert.rejects(near.accept(nowhere), unknown)
  await assert.rejects(near.newPeerListener({ Listen: nowhere, Forward: ANY_PORT }), unknown)
  await assert.rejects(near.newListener({ Listen: nowhere, Forward: ANY_PORT }), unknown)
  await nothingLeft(near, far)
})

everyWay('a listener that cannot bind is PROXY_ERR_LISTEN_FAILED, and others go on', both, async ({ near }) => {
  await using target = await echo()
  const listener = await near.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  const taken = { Listen: target.endpoint, Forward: target.endpoint }
  await assert.rejects(near.newListener(taken), {
    code: 'PROXY_ERR_LISTEN_FAILED',
    message: `cannot listen on ${target.endpoint.Addr}: the address is in use already`,
  })
  await assert.rejects(near.newPeerListener(taken), { code: 'PROXY_ERR_LISTEN_FAILED' })
  await assert.rejects(near.accept(target.endpoint), { code: 'PROXY_ERR_LISTEN_FAILED' })
  const peerListener = await near.newPeerListener({ Listen: ANY_PORT, Forward: target.endpoint })
  for (const { bound } of [listener, peerListener]) {
    const socket = await dialProgram(bound)
    socket.end('ping')
    assert.equal((await readAll(socket)).toString(), 'ping')
  }
})

everyWay('opens that are under way when their listener closes get PROXY_ERR_UNKNOWN_LISTENER', {}, async (stage) => {
  const { near, far, farCode } = stage
  const incoming = await near.accept(CODE)
  const subs = await Promise.all([1, 2, 3].map(() => farCode.open()))
  const errors = subs.map(async (sub) => (await endOf(sub))?.code)
  await incoming.close()
  assert.deepEqual(await soon(Promise.all(errors), 'the refusals'), Array(3).fill('PROXY_ERR_UNKNOWN_LISTENER'))
  await nothingLeft(near, far)
})

everyWay('diagnostics tell of each sub-connection that opened, and that it closed', both, async ({ near, far }) => {
  const log: string[] = []
  const mine = (sub: SubConnection): boolean => [near.main, far.main].some((main) => mains.get(sub) === main)
  const mains = new Map<SubConnection, unknown>()
  const onOpen = (message: unknown): void => {
    const { proxy, sub } = message as { proxy: typeof near; sub: SubConnection }
    mains.set(sub, proxy.main)
    if (mine(sub)) log.push(`open ${sub.id}`)
  }
  const onClose = (message: unknown): void => {
    const { sub } = message as { sub: SubConnection }
    if (mine(sub)) log.push(`close ${sub.id}`)
  }
  diagnostics.subOpen.subscribe(onOpen)
  diagnostics.subClose.subscribe(onClose)
  await using target = await echo()
  const sub = await near.dial(target.endpoint)
  sub.end('x')
  await readAll(sub)
  await nothingLeft(near, far)
  diagnostics.subOpen.unsubscribe(onOpen)
  diagnostics.subClose.unsubscribe(onClose)
  const { id } = sub
  assert.deepEqual(log.sort(), [`close ${id}`, `close ${id}`, `open ${id}`, `open ${id}`])
})
