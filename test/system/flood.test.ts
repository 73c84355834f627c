import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { boundAt, connectNode, startServer } from '../helpers/e2e/cli.ts'
import { fillSessions, startDoorstep } from '../helpers/e2e/doorstep.ts'
import { startEcho, visit } from '../helpers/e2e/talk.ts'
import {
  cpuOf,
  filesOf,
  memoryOf,
  raiseOpenFiles,
  said,
  startCrowdEcho,
  startStrangers,
  startVisitors,
} from '../helpers/system/crowd.ts'
import { eventually } from '../helpers/system/net.ts'
import { cannotRun } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, logged, parseAddress } from '../helpers/system/symport.ts'

const CONNECTIONS = 10_000
/** Files that a process has open besides. */
const OTHER_FILES = 100
const MAX_HANDSHAKES = 1024

const ROUNDS = 5
const MEASURE_MS = 500
const WARM_UP_MS = 100
const LEAST_SHARE = 0.8
/** What a flood may cost a server: handshakes that wait hold up to 4 KiB of unread bytes and a socket each. */
const FLOOD_MIB = 128

/** What is loaded at the beginning is not counted: at most 8 KiB for each connection, and all windows there can be. */
const CROWD_MIB = (CONNECTIONS * 8) / 1024 + 64

/** MiB for each second, and for each second that the server spent on a processor. */
type Speed = Readonly<Record<'wall' | 'cpu', number>>

/** Bulk through a mapping, to one connection that is always there: its speed is what the tunnel has time for. */
class Bulk {
  readonly #socket: Socket
  readonly #pid: number
  #bytes = 0

  private constructor(socket: Socket, pid: number) {
    this.#socket = socket
    this.#pid = pid
    socket.on('data', (chunk) => {
      this.#bytes += chunk.length
    })
    socket.pause()
  }

  /** `pid`: the server's. */
  static async open(stage: Stage, { host, port }: Address, pid: number): Promise<Bulk> {
    const socket = connect({ host, port })
    stage.defer(() => socket.destroy())
    await once(socket, 'connect')
    return new Bulk(socket, pid)
  }

  async speed(): Promise<Speed> {
    this.#socket.resume()
    await sleep(WARM_UP_MS)
    const [since, cpu, bytes] = [performance.now(), cpuOf(this.#pid), this.#bytes]
    await sleep(MEASURE_MS)
    const mib = (this.#bytes - bytes) / 1024 / 1024
    const speed = { wall: mib / ((performance.now() - since) / 1000), cpu: mib / (cpuOf(this.#pid) - cpu) }
    this.#socket.pause()
    return speed
  }
}

/** Sends without end to whoever comes: gives its port. */
async function startSource(stage: Stage): Promise<number> {
  const chunk = Buffer.alloc(262_144)
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    const fill = (): void => {
      while (!socket.destroyed && socket.write(chunk));
    }
    socket.on('drain', fill)
    fill()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  stage.defer(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

function median(values: readonly number[]): number {
  return [...values].sort((left, right) => left - right)[Math.floor(values.length / 2)] ?? Number.NaN
}

test('10,000 strangers leave a node 0.8 of its speed, and others can still connect', {
  timeout: 120_000,
}, async (t) => {
  const stage = new Stage(t)
  const source = await startSource(stage)
  const mapping = ['--listener', `tcp://127.0.0.1:0,tcp://127.0.0.1:${source}`]
  const { server, at } = await startServer(stage, [...mapping, '--allow', '127.0.0.1:*'])
  await connectNode(stage, at)
  const bulk = await Bulk.open(stage, parseAddress(await boundAt(server)), server.pid)
  await bulk.speed()
  const [files, memory] = [filesOf(server.pid), memoryOf(server.pid)]

  // What else runs on this machine takes its share, and another one each moment. So each speed under the flood is
  // compared with those right before and right after it, and the median of the rounds counts. All that in two ways: by
  // the clock, and by the time that the server had on a processor. Noise spoils one of them; a server that is busy with
  // strangers, both.
  const shares: Record<keyof Speed, number[]> = { wall: [], cpu: [] }
  let calm = await bulk.speed()
  for (let round = 1; round <= ROUNDS; round++) {
    const strangers = await startStrangers(stage, at, CONNECTIONS)
    const first = await bulk.speed()
    const second = await bulk.speed()
    const held = filesOf(server.pid) - files
    assert.ok(held > MAX_HANDSHAKES / 2, `only ${held} strangers are there`)
    assert.ok(held <= MAX_HANDSHAKES + OTHER_FILES, `${held} strangers are there`)
    if (round === ROUNDS) {
      const target = await startEcho(stage)
      const node = await connectNode(stage, at, ['-L', `tcp://127.0.0.1:0,${target}`], { state: 'second' })
      assert.equal(await visit(stage, await boundAt(node)), 'hello')
      const grown = memoryOf(server.pid) - memory
      assert.ok(grown <= FLOOD_MIB, `${grown} MiB`)
    }
    strangers.killGroup()
    await eventually(async () => assert.ok(filesOf(server.pid) <= files + OTHER_FILES))
    const after = await bulk.speed()
    for (const by of ['wall', 'cpu'] as const) {
      const speeds = [calm, first, second, after].map((speed) => Math.round(speed[by]))
      t.diagnostic(`round ${round}, ${by}: ${speeds.join(', ')} MiB/s`)
      shares[by].push((first[by] + second[by]) / (calm[by] + after[by]))
    }
    calm = after
  }
  const [wall, cpu] = [median(shares.wall), median(shares.cpu)]
  t.diagnostic(`by the clock ${wall.toFixed(2)}, by the server's time ${cpu.toFixed(2)}`)
  assert.ok(Math.max(wall, cpu) >= LEAST_SHARE, `by the clock ${wall}, by the server's time ${cpu}`)
  await logged(server, 'refused a connection')
})

test('10,000 connections through one main connection, one of them never read', { timeout: 120_000 }, async (t) => {
  const stage = new Stage(t)
  const limit = await raiseOpenFiles(stage, CONNECTIONS + 5000)
  if (limit < CONNECTIONS + OTHER_FILES && cannotRun(t, `${limit} open files are allowed: see ulimit -n`)) return
  const port = await startCrowdEcho(stage)
  const { server, at } = await startServer(stage, ['--listener', `tcp://127.0.0.1:0,tcp://127.0.0.1:${port}`])
  const node = await connectNode(stage, at)
  const listen = await boundAt(server)
  assert.equal(await visit(stage, listen), 'hello')
  const before = [memoryOf(server.pid), memoryOf(node.pid)]

  const visitors = await startVisitors(stage, parseAddress(listen), CONNECTIONS)
  await said(visitors, `opened ${CONNECTIONS}`, 60_000)
  for (const round of [1, 2]) await said(visitors, `round ${round}: ${CONNECTIONS - 1}`, 30_000)
  await said(visitors, 'the first one is still there', 1000)
  assert.ok(filesOf(server.pid) >= CONNECTIONS)
  for (const [index, child] of [server, node].entries()) {
    const grown = memoryOf(child.pid) - (before[index] ?? 0)
    t.diagnostic(`${index === 0 ? 'server' : 'node'}: ${Math.round(grown)} MiB`)
    assert.ok(grown <= CROWD_MIB, `${grown} MiB, where ${CROWD_MIB} are allowed`)
  }
  assert.equal(await visit(stage, listen), 'hello')
})

test('main connections at once are 4,096 by default', { timeout: 120_000 }, async () => {
  await using door = await startDoorstep()
  await fillSessions(door, 4096)
})
