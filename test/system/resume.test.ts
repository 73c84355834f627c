import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { logs } from '../helpers/e2e/cli.ts'
import { goesOn, linkLost, mark, type Relayed, startMapped, timeOf } from '../helpers/e2e/relayed.ts'
import { echo, open, startEcho } from '../helpers/e2e/talk.ts'
import { type Random, seeded } from '../helpers/faults/random.ts'
import type { Child } from '../helpers/system/child.ts'
import { cleanEnvironment } from '../helpers/system/child.ts'
import { Cuts } from '../helpers/system/cuts.ts'
import { PASSWORD, startPostgres } from '../helpers/system/postgres.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { clientOptions, startSshd } from '../helpers/system/sshd.ts'
import { Stage } from '../helpers/system/stage.ts'
import { parseAddress } from '../helpers/system/symport.ts'
import { carry, type Order, type Stream, startTrafficTarget } from '../helpers/system/traffic.ts'
import { startTyped, type Typed } from '../helpers/system/typed.ts'

const MIB = 1024 * 1024
const CUTS = 20
const NOTICED_WITHIN_MS = 25_000
/** Timers of processes that share two processors with all that runs here come late. */
const SLACK_MS = 1000
/** Prints numbered lines until it is told to quit, and meanwhile answers what is typed. */
const REMOTE = `
(i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.02; done) &
while read -r word && [ "$word" != quit ]; do echo "got $word"; done
kill $!; wait; echo bye; exit 7`

/** It was never said that a main connection is over, and what was paused went on. */
function nothingEnded({ server, node }: Relayed): void {
  for (const side of [server, node]) {
    const ended = logs(side).find(({ msg }) => / disconnected$/.test(msg))
    assert.equal(ended, undefined, JSON.stringify(ended))
  }
}

function printed(child: Child, line: string): Promise<true> {
  return child.line((each) => (each === line ? true : undefined), JSON.stringify(line))
}

/** The lines that a program prints without being asked are all there, in order. */
function assertNumbered(lines: readonly string[]): void {
  const numbers = lines.flatMap((line) => (line.startsWith('line ') ? [Number(line.slice('line '.length))] : []))
  assert.ok(numbers.length > CUTS)
  assert.deepEqual(
    numbers,
    numbers.map((_, index) => index + 1),
  )
}

/** Each time a link is cut, and `ask` waits for an answer that needs another one. */
async function cutTimes(relayed: Relayed, random: Random, ask: (round: number) => Promise<void>): Promise<string> {
  const cuts = new Cuts(relayed.relay, random)
  for (let round = 1; round <= CUTS; round++) {
    await cuts.now()
    if (random.chance(0.5)) await sleep(random.integer(0, 100))
    await ask(round)
  }
  assert.equal(cuts.count, CUTS)
  return String(cuts)
}

describe('what is open goes on', { concurrency: 6 }, () => {
  test('a GiB down and one up at once keep every byte across a hundred cuts', { timeout: 100_000 }, async (t) => {
    const stage = new Stage(t)
    const target = await startTrafficTarget(stage)
    const relayed = await startMapped(stage, `tcp://127.0.0.1:${target.port}`)
    const orders: readonly Order[] = ['together', 'together', 'up, then down', 'down, then up']
    const streams = Array.from({ length: 20 }, (_, id): Stream => {
      const bytes = (1024 * MIB) / 20
      return { id, order: orders[id % 4] ?? 'together', up: Math.ceil(bytes), down: Math.ceil(bytes) }
    })
    await seeded(async (random) => {
      t.diagnostic(`SYMPORT_SEED=${random.seed}`)
      const cuts = new Cuts(relayed.relay, random)
      cuts.spread({ every: 6 * MIB, most: 150 })
      const since = performance.now()
      await carry(stage, { target, through: parseAddress(relayed.listen), streams, timeoutMs: 90_000 })
      cuts.stop()
      t.diagnostic(`${Math.round(performance.now() - since)} ms; ${cuts.count} cuts: ${cuts}`)
      assert.ok(cuts.count >= 100, `${cuts.count} cuts`)
    })
    nothingEnded(relayed)
  })

  /** An ssh session through the relay; its remote side prints all the time. */
  async function session(
    t: TestContext,
    stage: Stage,
    options: { both?: readonly string[] } = {},
  ): Promise<{ relayed: Relayed; ssh: Typed } | undefined> {
    const programs = requirePrograms(t, ['sshd', 'ssh', 'ssh-keygen'])
    if (programs === undefined) return undefined
    const { port } = await startSshd(stage, programs.sshd, programs['ssh-keygen'])
    const relayed = await startMapped(stage, `tcp://127.0.0.1:${port}`, options)
    const address = parseAddress(relayed.listen)
    const ssh = await startTyped(stage, programs.ssh, [...clientOptions(stage, address), address.host, REMOTE])
    await printed(ssh.child, 'line 1')
    return { relayed, ssh }
  }

  /** The session has lost nothing, and ends as its remote side says. */
  async function finish({ child, type }: Typed): Promise<void> {
    type('quit')
    assert.deepEqual(await child.exited, { status: 7, signal: null }, child.tail())
    assert.equal(child.lines.at(-1), 'bye')
    assertNumbered(child.lines)
  }

  test('an ssh session across 20 cuts: what it prints, and what is typed', { timeout: 60_000 }, async (t) => {
    const stage = new Stage(t)
    const both = await session(t, stage)
    if (both === undefined) return
    const { relayed, ssh } = both
    await seeded(async (random) => {
      t.diagnostic(`SYMPORT_SEED=${random.seed}`)
      const cuts = await cutTimes(relayed, random, async (round) => {
        ssh.type(`word-${round}`)
        await printed(ssh.child, `got word-${round}`)
      })
      t.diagnostic(cuts)
    })
    await finish(ssh)
    nothingEnded(relayed)
  })

  test('a transaction that is held open in psql across 20 cuts', { timeout: 60_000 }, async (t) => {
    const programs = requirePrograms(t, ['initdb', 'postgres', 'psql'])
    if (programs === undefined) return
    const stage = new Stage(t)
    const cluster = await startPostgres(stage, programs.initdb, programs.postgres)
    const relayed = await startMapped(stage, `tcp://127.0.0.1:${cluster.port}`)
    const { host, port } = parseAddress(relayed.listen)
    const login = ['-h', host, '-p', String(port), '-U', 'postgres', '-d', 'postgres']
    const args = ['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', ...login]
    const env = cleanEnvironment({ PGPASSWORD: PASSWORD, PGCONNECT_TIMEOUT: '15' })
    const psql = await startTyped(stage, programs.psql, args, { env })
    const ask = async (query: string, answer: string): Promise<void> => {
      psql.type(query)
      await printed(psql.child, answer)
    }
    await ask("begin; create temp table passing (n int); create table kept (n int); select 'begun';", 'begun')
    await seeded(async (random) => {
      t.diagnostic(`SYMPORT_SEED=${random.seed}`)
      const cuts = await cutTimes(relayed, random, async (round) => {
        const rows = `generate_series(${(round - 1) * 1000 + 1}, ${round * 1000})`
        psql.type(`insert into passing select ${rows}; insert into kept select ${rows};`)
        await ask('select count(*), sum(n) from passing;', `${round * 1000}|${(round * 1000 * (round * 1000 + 1)) / 2}`)
      })
      t.diagnostic(cuts)
    })
    const query = ['-c', 'select count(*), min(n), max(n) from kept']
    const before = await stage.run(programs.psql, [...args, ...query], { env })
    assert.notEqual(before.status, 0, 'nobody else sees the table before it is committed')
    await ask("commit; select 'committed';", 'committed')
    assert.equal(await stage.must(programs.psql, [...args, ...query], { env }), `${CUTS * 1000}|1|${CUTS * 1000}`)
    psql.type('\\q')
    assert.deepEqual(await psql.child.exited, { status: 0, signal: null })
    nothingEnded(relayed)
  })

  test('an ssh session whose node is stopped for 15 s, and given up by the server meanwhile', {
    timeout: 60_000,
  }, async (t) => {
    const stage = new Stage(t)
    const both = await session(t, stage, { both: ['--keepalive', '2s'] })
    if (both === undefined) return
    const { relayed, ssh } = both
    const { server, node } = relayed
    const seen = mark(relayed)
    node.signal('SIGSTOP')
    const stopped = performance.now()
    ssh.type('meanwhile')
    const { code } = await linkLost(server, seen.server)
    assert.equal(code, 'PROXY_ERR_KEEPALIVE')
    assert.ok(performance.now() - stopped < 15_000)
    await sleep(15_000 - (performance.now() - stopped))
    node.signal('SIGCONT')
    await printed(ssh.child, 'got meanwhile')
    await goesOn(server, seen.server)
    await goesOn(node, seen.node)
    await finish(ssh)
    nothingEnded(relayed)
  })

  for (const ways of ['both', 'up', 'down'] as const) {
    const lost = { both: 'nothing passes', up: 'nothing reaches the server', down: 'nothing reaches the node' }[ways]
    test(`a silent connection is told within 25 s, with nothing set, that ${lost} any more`, {
      timeout: 60_000,
    }, async (t) => {
      const stage = new Stage(t)
      const relayed = await startMapped(stage, await startEcho(stage))
      const socket = await open(stage, relayed.listen)
      await echo(socket, 'before')
      const seen = mark(relayed)
      const since = Date.now()
      // So that each side finds it out by itself, and not by the next link.
      relayed.relay.block('refuse')
      relayed.relay.links.at(-1)?.blackhole(ways)
      const told = await Promise.all([
        linkLost(relayed.server, seen.server, NOTICED_WITHIN_MS + SLACK_MS),
        linkLost(relayed.node, seen.node, NOTICED_WITHIN_MS + SLACK_MS),
      ])
      for (const log of told) {
        const took = timeOf(log) - since
        assert.ok(took <= NOTICED_WITHIN_MS + SLACK_MS, `it took ${took} ms: ${JSON.stringify(log)}`)
      }
      // Who hears nothing finds out; a side that still hears is told by the end of the link.
      assert.deepEqual(
        told.map(({ code }) => code === 'PROXY_ERR_KEEPALIVE'),
        [ways !== 'down', ways !== 'up'],
      )
      await relayed.relay.unblock()
      await echo(socket, 'after')
      await Promise.all([goesOn(relayed.server, seen.server), goesOn(relayed.node, seen.node)])
      nothingEnded(relayed)
    })
  }
})
