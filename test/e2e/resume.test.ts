import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { boundAt, connectNode, logLine, logs, startServer } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { goesOn, linkLost, mark, type Relayed, startMapped, startRelayed, timeOf } from '../helpers/e2e/relayed.ts'
import { closed, echo, open, startEcho, visit } from '../helpers/e2e/talk.ts'
import { endOf, startTarget } from '../helpers/e2e/target.ts'
import { seeded } from '../helpers/faults/random.ts'
import type { Child } from '../helpers/system/child.ts'
import { Cuts } from '../helpers/system/cuts.ts'
import { freePort } from '../helpers/system/net.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, parseAddress, spec } from '../helpers/system/symport.ts'
import { carry, type Order, type Stream, startTrafficTarget } from '../helpers/system/traffic.ts'

const STOPPED = { status: 0, signal: null }
const MIB = 1024 * 1024
const BACK_WITHIN_MS = 2000
/** An old session that says nothing is asked for a sign of life for 2 s. */
const PROBED_WITHIN_MS = 2500
/** What a side that can stop at once takes for it, whatever else this machine does. */
const AT_ONCE_MS = 3000

/** Both sides have logged that the link was lost, and that they go on. */
async function bothGoOn(relayed: Relayed, seen: { server: number; node: number }): Promise<void> {
  for (const side of ['server', 'node'] as const) {
    await linkLost(relayed[side], seen[side])
    await goesOn(relayed[side], seen[side])
  }
}

/** Nothing can be reached any more, and both sides know. */
async function loseAll(relayed: Relayed): Promise<void> {
  const seen = mark(relayed)
  relayed.relay.block('refuse')
  assert.equal(relayed.relay.cut('rst'), 1)
  await Promise.all([linkLost(relayed.server, seen.server), linkLost(relayed.node, seen.node)])
}

async function killed(child: Child): Promise<void> {
  child.signal('SIGKILL')
  await child.exited
}

/** It was never said that a main connection is over. */
function nothingEnded({ server, node }: Relayed): void {
  for (const side of [server, node]) {
    const ended = logs(side).find(({ msg }) => / disconnected$/.test(msg))
    assert.equal(ended, undefined, JSON.stringify(ended))
  }
}

describe('resuming', { concurrency: 3 }, () => {
  test('an open connection survives a black hole', async (t) => {
    const stage = new Stage(t)
    const relayed = await startMapped(stage, await startEcho(stage), { both: ['--keepalive', '1s'] })
    const socket = await open(stage, relayed.listen)
    await echo(socket, 'before')
    const seen = mark(relayed)
    // So that both sides find it out by themselves, and not by the next link.
    relayed.relay.block('refuse')
    relayed.relay.links.at(-1)?.blackhole('both')
    const answer = echo(socket, 'into the hole')
    for (const { code } of await Promise.all([
      linkLost(relayed.server, seen.server),
      linkLost(relayed.node, seen.node),
    ])) {
      assert.equal(code, 'PROXY_ERR_KEEPALIVE')
    }
    await relayed.relay.unblock()
    await Promise.all([answer, bothGoOn(relayed, seen)])
    await echo(socket, 'after')
    nothingEnded(relayed)
  })

  test('an open connection survives cuts of all kinds, and both sides log the pause and that they go on', async (t) => {
    const stage = new Stage(t)
    const relayed = await startMapped(stage, await startEcho(stage))
    const socket = await open(stage, relayed.listen)
    await echo(socket, 'before')
    for (const how of ['fin', 'rst'] as const) {
      for (const told of ['both', 'the server first', 'the node alone'] as const) {
        const seen = mark(relayed)
        const link = relayed.relay.links.at(-1)
        assert.ok(link)
        if (told === 'the server first') {
          link.cut(how, 'up')
          await linkLost(relayed.server, seen.server)
        }
        link.cut(how, told === 'both' ? 'both' : 'down')
        await echo(socket, `meanwhile: ${how}, ${told}`)
        // A server that has not noticed has nothing to tell: it gets another link for the one it has.
        if (told === 'the node alone')
          await Promise.all([linkLost(relayed.node, seen.node), goesOn(relayed.node, seen.node)])
        else await bothGoOn(relayed, seen)
        await echo(socket, 'after')
      }
    }
    assert.equal(await visit(stage, relayed.listen), 'hello')
    nothingEnded(relayed)
  })

  test('16 MiB each way in six connections lose nothing in 20 cuts', async (t) => {
    const stage = new Stage(t)
    const target = await startTrafficTarget(stage)
    const relayed = await startMapped(stage, `tcp://127.0.0.1:${target.port}`)
    const orders: readonly Order[] = ['together', 'up, then down', 'down, then up']
    const streams = Array.from({ length: 6 }, (_, id): Stream => {
      const bytes = (8 * MIB) / 3
      return { id, order: orders[id % 3] ?? 'together', up: Math.floor(bytes), down: Math.ceil(bytes) }
    })
    await seeded(async (random) => {
      t.diagnostic(`SYMPORT_SEED=${random.seed}`)
      const cuts = new Cuts(relayed.relay, random)
      cuts.spread({ every: MIB / 4, most: 24 })
      await carry(stage, { target, through: parseAddress(relayed.listen), streams, timeoutMs: 15_000 })
      cuts.stop()
      t.diagnostic(String(cuts))
      assert.ok(cuts.count >= 20, `${cuts.count} cuts`)
    })
    nothingEnded(relayed)
  })

  test('connections go on when the server can be reached again after a while, from another address, and new ones wait', async (t) => {
    const stage = new Stage(t)
    const relayed = await startMapped(stage, await startEcho(stage))
    const { server, node, relay } = relayed
    const before = await logged(server, 'node connected')
    const socket = await open(stage, relayed.listen)
    await echo(socket, 'before')
    const seen = mark(relayed)
    await loseAll(relayed)
    await logLine(node, 'a failed try', ({ msg }) => msg.startsWith('nothing listens on 127.0.0.1'), seen.node)
    const answers = Promise.all([echo(socket, 'meanwhile'), visit(stage, relayed.listen)])
    await relay.unblock()
    assert.deepEqual(await answers, [undefined, 'hello'])
    const after = await goesOn(server, seen.server)
    assert.match(String(after.address), /^127\.0\.0\.1:\d+$/)
    assert.notEqual(after.address, before.address)
    await goesOn(node, seen.node)
    nothingEnded(relayed)
  })

  for (const noticed of [true, false]) {
    const when = noticed ? 'that lost it' : 'that has not noticed that it is gone'
    test(`a node that was killed and starts again takes its own port back from a server ${when}`, async (t) => {
      const stage = new Stage(t)
      const target = await startEcho(stage)
      const port = await freePort()
      const mapping = ['-R', spec(`tcp://127.0.0.1:${port}`, target)]
      const grant = ['--allow-ports', String(port)]
      const { server, node, relay, via } = await startRelayed(stage, { server: grant, node: mapping })
      assert.equal(await boundAt(node), `tcp://127.0.0.1:${port}`)
      const socket = await open(stage, `tcp://127.0.0.1:${port}`)
      await echo(socket, 'before')
      const end = endOf(socket)

      if (!noticed) relay.links.at(-1)?.blackhole('both')
      await killed(node)
      if (noticed) await linkLost(server)
      const again = await connectNode(stage, via, mapping)
      assert.equal(await boundAt(again), `tcp://127.0.0.1:${port}`)
      const took = timeOf(await logged(again, 'listener ready')) - timeOf(await logged(again, 'connected'))
      assert.ok(took <= (noticed ? BACK_WITHIN_MS : PROBED_WITHIN_MS), `it took ${took} ms`)
      assert.ok(!logs(again).some(({ level }) => level !== 'info'), 'nobody was refused anything')
      assert.equal((await logged(server, 'node disconnected')).code, 'PROXY_ERR_REPLACED')
      assert.equal(await end, 'ECONNRESET')
      assert.equal(await visit(stage, `tcp://127.0.0.1:${port}`), 'hello')
    })
  }

  test('a server that was killed and starts again has its node back within 2 s, the mappings too, and what was open ends', async (t) => {
    const stage = new Stage(t)
    const target = await startTarget(stage)
    const forth = `unix://${stage.path('forth.sock')}`
    const args = ['--listener', `${forth},${target.at}`, '--peer_listener', `tcp://127.0.0.1:0,${target.at}`]
    const { server, node, at } = await startRelayed(stage, { server: args })
    const socket = await open(stage, forth)
    await echo(socket, 'before')
    const [there] = target.sockets
    assert.ok(there)
    const end = endOf(there)

    const seen = node.lines.length
    await killed(server)
    await linkLost(node, seen)
    const second = await startServer(stage, args, { port: at.port })
    const took = timeOf(await logged(node, 'connected', seen)) - timeOf(await logged(second.server, 'listening'))
    assert.ok(took <= BACK_WITHIN_MS, `it took ${took} ms`)
    assert.equal((await logged(node, 'server disconnected', seen)).code, 'PROXY_ERR_SESSION_LOST')
    assert.equal(await end, 'ECONNRESET')
    await closed(socket)
    assert.equal(await visit(stage, forth), 'hello')
    const back = await logLine(second.server, 'the listener at the node', (log) => 'at' in log && 'listen' in log)
    assert.equal(await visit(stage, String(back.listen)), 'hello')
  })

  for (const [timeout, least] of [
    ['1s', 1000],
    ['0s', 0],
  ] as const) {
    test(`--resume-timeout ${timeout}: what is open is reset at both ends, and both sides say why`, async (t) => {
      const stage = new Stage(t)
      const target = await startTarget(stage)
      const relayed = await startMapped(stage, target.at, { both: ['--resume-timeout', timeout] })
      const { relay, listen } = relayed
      const socket = await open(stage, listen)
      await echo(socket, 'before')
      const [there] = target.sockets
      assert.ok(there)
      const ends = Promise.all([endOf(socket), endOf(there)])
      const seen = mark(relayed)
      const since = performance.now()
      relay.block('refuse')
      relay.cut('rst')
      assert.deepEqual(await ends, ['ECONNRESET', 'ECONNRESET'])
      const took = performance.now() - since
      assert.ok(took >= least - 50 && took <= least + AT_ONCE_MS, `it took ${took} ms`)
      for (const side of ['server', 'node'] as const) {
        const peer = side === 'server' ? 'node' : 'server'
        const { code, reason } = await logged(relayed[side], `${peer} disconnected`, seen[side])
        assert.equal(code, 'PROXY_ERR_SESSION_LOST')
        const why = least > 0 ? 'no way to go on was found within 1 s: ' : ''
        const how = '(the other side closed the link|the link was lost: (read|write) ECONNRESET)'
        assert.match(String(reason), new RegExp(`^the main connection was lost: ${why}${how}$`))
        const paused = logs(relayed[side]).some(({ msg }) => msg.startsWith('lost the link'))
        assert.equal(paused, least > 0)
      }
      await relay.unblock()
      await logged(relayed.node, 'connected', seen.node)
      assert.equal(await visit(stage, listen), 'hello')
    })
  }

  test('SIGTERM while there is no link ends either side at once if nothing is open', async (t) => {
    const stage = new Stage(t)
    const relayed = await startRelayed(stage)
    await loseAll(relayed)
    for (const child of [relayed.server, relayed.node]) {
      const since = performance.now()
      child.signal('SIGTERM')
      assert.deepEqual(await child.exited, STOPPED)
      const took = performance.now() - since
      assert.ok(took < AT_ONCE_MS, `it took ${took} ms`)
    }
  })

  for (const side of ['server', 'node'] as const) {
    test(`SIGTERM while there is no link lets what is open go on, and the ${side} ends with it`, {
      timeout: 10_000,
    }, async (t) => {
      const stage = new Stage(t)
      const relayed = await startMapped(stage, await startEcho(stage))
      const { [side]: child, listen, relay } = relayed
      const socket = await open(stage, listen)
      await echo(socket, 'before')
      await loseAll(relayed)
      const seen = child.lines.length
      child.signal('SIGTERM')
      await logged(child, 'stopping: open connections may finish', seen)
      await relay.unblock()
      await echo(socket, 'while it stops')
      socket.end()
      await closed(socket)
      assert.deepEqual(await child.exited, STOPPED)
    })

    test(`SIGTERM while there is no link cuts what is open after --drain-timeout, and the ${side} ends with 0`, async (t) => {
      const stage = new Stage(t)
      const target = await startTarget(stage)
      const relayed = await startMapped(stage, target.at, { both: ['--drain-timeout', '300ms'] })
      const { [side]: child, listen } = relayed
      const socket = await open(stage, listen)
      await echo(socket, 'before')
      await loseAll(relayed)
      const here = side === 'server' ? socket : target.sockets[0]
      assert.ok(here)
      const end = endOf(here)
      const since = performance.now()
      child.signal('SIGTERM')
      assert.deepEqual(await child.exited, STOPPED)
      const took = performance.now() - since
      assert.ok(took >= 250 && took < 300 + AT_ONCE_MS, `it took ${took} ms`)
      assert.equal(await end, 'ECONNRESET')
    })
  }
})

describe('bad settings of resuming get one line that says what is wrong, and the status 2:', { concurrency: 3 }, () => {
  for (const [flag, value, says] of [
    ['resume-timeout', 'x', '"x" is not a duration: write 30s, 2m or 500ms'],
    ['resume-timeout', '10', '"10" is not a duration: write 30s, 2m or 500ms'],
    ['resume-timeout', '-1s', '"-1s" is not a duration: write 30s, 2m or 500ms'],
    ['resume-timeout', '600h', '600h is too long: 24 days are the most (576h)'],
    ['keepalive', '15', '"15" is not a duration: write 30s, 2m or 500ms'],
    ['keepalive', '0s', 'at least 1s'],
    ['keepalive', '999ms', 'at least 1s'],
  ] as const) {
    test(`--${flag} ${value}`, async (t) => {
      const stage = new Stage(t)
      for (const side of ['server', 'node']) {
        const { status, stdout, stderr } = await runHere(stage, [side, `--${flag}`, value])
        assert.deepEqual({ status, stdout, stderr }, { status: 2, stdout: '', stderr: `symport: --${flag}: ${says}` })
      }
    })
  }
})
