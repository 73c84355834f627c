import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type AdminClient, type BatchResult, createClient, localPlace } from '../../apps/common/admin-client.ts'
import { formatBytes } from '../../apps/common/table.ts'
import { adminSocket } from '../../lib/admin/socket-path.ts'
import type { MappingStatus, NodeStatus } from '../../lib/index.ts'
import { StateFolder } from '../../lib/index.ts'
import { ask } from '../helpers/admin/client.ts'
import { type Result, run, start } from '../helpers/e2e/cli.ts'
import { startOnTerminal } from '../helpers/e2e/terminal.ts'
import { Random } from '../helpers/faults/random.ts'
import type { Child } from '../helpers/system/child.ts'
import { eventually, freePort } from '../helpers/system/net.ts'
import { findProgram } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, symportEnvironment } from '../helpers/system/symport.ts'

/** One server of the size that it is meant for, from an empty state folder on: the figures of doc/performance.md. */

const NODES = 500
const EACH = 4
const MAPPINGS = NODES * EACH
/** Nodes whose secret a person chose. */
const CHOSEN = 20
/** Deriving a key is slow on purpose, and as slow for each node: that is measured for a few, and left out for the many. */
const REAL = 24
const CHEAP = { NODE_OPTIONS: `--import ${new URL('../helpers/system/cheap-scrypt-main.js', import.meta.url).href}` }
const MAIN = fileURLToPath(new URL('../helpers/system/many-nodes-main.js', import.meta.url))
/** Of the networks where the mappings listen, and where they lead to. */
const [LISTEN, TARGET] = [20, 30]

/** A mapping of the configuration file. All else follows from its number: which node serves it, and its addresses. */
interface Entry {
  readonly number: number
  readonly wait?: string
}

const nodeId = (mapping: number): string => `node-${String(Math.floor(mapping / EACH) % NODES).padStart(3, '0')}`
const addressOf = (net: number, number: number): string => `127.${net}.${number >> 8}.${number & 255}`
const numbers = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, n) => from + n)

test('a server with 500 nodes and 2,000 mappings starts, lists, reloads and restarts', {
  skip: process.platform === 'linux' ? false : 'all of 127.0.0.0/8 is this machine on Linux only',
  timeout: 180_000,
}, async (t) => {
  const stage = new Stage(t)
  const state = stage.path('state')
  const at = ['--state', state]
  const [port, mapped, target] = [await freePort(), await freePort(), await freePort()]
  const figures = new Figures()
  const client: AdminClient = createClient(await localPlace(new StateFolder(state)))
  const env = symportEnvironment(stage, CHEAP)
  const symport = async (...args: string[]): Promise<Result> => {
    const result = await run(stage, [...args, ...at], { env, timeoutMs: 60_000 })
    assert.equal(result.status, 0, result.stderr)
    return result
  }

  // Nodes, while no server runs.
  const list = numbers(0, NODES).map((n) =>
    n < CHOSEN ? `${nodeId(n * EACH)},a-chosen-Secret-${n}-4711` : nodeId(n * EACH),
  )
  writeFileSync(stage.path('ids'), `${list.join('\n')}\n`)
  writeFileSync(stage.path('few'), `${list.slice(0, REAL).join('\n')}\n`)
  const few = ['nodes', 'add', '--from', stage.path('few'), '--state', stage.path('few-state')]
  await figures.time(`\`symport nodes add --from\` of ${REAL}, their keys derived`, async () => {
    const { status, shown } = await onTerminal(t, stage, few, { question: 'nodes are added', answer: '' })
    assert.equal(status, 0, shown)
    if (hasTerminal) assert.match(shown, /20 of 24 nodes are added/)
  })
  const made = await figures.time('`symport nodes add --from` of 500, without deriving their keys', () =>
    symport('nodes', 'add', '--from', stage.path('ids'), '--json'),
  )
  const secrets = new Map((JSON.parse(made.stdout) as BatchResult[]).map(({ id, secret }) => [id, secret]))
  assert.equal(secrets.size, NODES)
  const nodes = numbers(0, NODES).map((n) => {
    const id = nodeId(n * EACH)
    const own = numbers(0, EACH).map((k) => addressOf(TARGET, n * EACH + k))
    const added = n < 10 ? [addressOf(TARGET, MAPPINGS + n)] : []
    return [id, secrets.get(id) ?? `a-chosen-Secret-${n}-4711`, ...own, ...added].join(',')
  })
  writeFileSync(stage.path('nodes'), nodes.join('\n'))

  // Mappings, from a file.
  const file = stage.path('server.toml')
  const configure = (entries: readonly Entry[]): void => {
    const mappings = entries.map(({ number, wait }) => {
      const node = number < MAPPINGS ? nodeId(number) : nodeId((number - MAPPINGS) * EACH)
      const lines = [
        '[[mapping]]',
        `listen = "${addressOf(LISTEN, number)}:${mapped}"`,
        `forward = "${addressOf(TARGET, number)}:${target}"`,
        `node = "${node}"`,
        ...(wait === undefined ? [] : [`wait = "${wait}"`]),
      ]
      return lines.join('\n')
    })
    writeFileSync(file, `host = "127.0.0.1"\nport = ${port}\nenrolled-only = true\n\n${mappings.join('\n\n')}\n`)
  }
  const first: Entry[] = numbers(0, MAPPINGS).map((number) => ({ number }))
  configure(first)
  await figures.time('`symport check`', () => run(stage, ['check', file]).then(({ status }) => assert.equal(status, 0)))

  const serve = async (name: string): Promise<Child> => {
    const from = performance.now()
    const server = await start(stage, ['server', '--config', file, ...at], { env: CHEAP })
    await logged(server, 'listening')
    figures.add(`${name}, until it listens for nodes`, from)
    let left = MAPPINGS
    await logged(server, 'listener ready', 0, () => --left === 0)
    figures.add(`${name}, until all mappings listen`, from)
    return server
  }
  const server = await serve('start')
  const figure = async (name: string): Promise<void> => {
    const { rss } = (await client.status()).memory
    figures.set(name, formatBytes(rss))
    assert.ok(rss < 600 * 1024 * 1024, `${name}: ${formatBytes(rss)}`)
  }
  await figure('memory of the server, no node connected')

  // The nodes.
  const many = await stage.start(process.execPath, [MAIN, String(port), String(target), stage.path('nodes')], { env })
  const connected = async (ever: number): Promise<void> => {
    const pick = (line: string): true | undefined => {
      const [, open, so] = /^nodes (\d+), (\d+)$/.exec(line) ?? []
      return Number(open) === NODES && Number(so) >= ever ? true : undefined
    }
    await many.line(pick, `all nodes`, 0, 60_000)
  }
  await figures.time('one process with 500 nodes, until all are connected', () => connected(NODES))
  await eventually(async () => assert.equal((await client.status()).nodes.connected, NODES))
  await figure('memory of the server, all nodes connected')

  // Everybody hears from the right node: no other one may dial that target.
  const visit = (number: number): Promise<Visitor> => Visitor.to(addressOf(LISTEN, number), mapped)
  const answers = async (number: number): Promise<void> => {
    using visitor = await visit(number)
    assert.equal(await visitor.line(), addressOf(TARGET, number))
  }
  const random = new Random(4)
  const some = numbers(0, 200).map(() => random.integer(0, MAPPINGS - 1))
  await figures.time('200 connections, one after the other, until the target has answered', async () => {
    for (const number of some) await answers(number)
  })

  const before = cpuSeconds(server.pid)
  await delay(3000)
  const idle = (cpuSeconds(server.pid) - before) / 3
  figures.set('processor time while nobody says anything', `${(idle * 100).toFixed(1)} %`)
  assert.ok(idle < 0.2, `${idle} s in a second`)

  // Lists, while somebody talks.
  using talker = await Talker.start(await visit(1234))
  await talker.during('no other load', figures, () => delay(1000))
  const lists: [string, string[]][] = [
    ['symport status', ['status', '--json']],
    ['symport nodes list', ['nodes', 'list', '--json']],
    ['symport mappings list', ['mappings', 'list', '--json']],
  ]
  const listed: string[] = []
  for (const [name, args] of lists) {
    listed.push(...(await talker.during(`\`${name}\``, figures, async () => [(await symport(...args)).stdout])))
  }
  const [, nodeList = '[]', mappingList = '[]'] = listed
  const shownNodes = JSON.parse(nodeList) as NodeStatus[]
  assert.equal(shownNodes.filter((node) => node.connected && node.enrolled).length, NODES)
  const shownMappings = JSON.parse(mappingList) as MappingStatus[]
  assert.equal(shownMappings.filter((mapping) => mapping.state === 'ready').length, MAPPINGS)
  assert.equal(shownMappings.filter((mapping) => mapping.totals.connections > 0).length, new Set([...some, 1234]).size)
  const one = JSON.parse((await symport('status', '--node', nodeId(28), '--json')).stdout) as Listed
  assert.deepEqual([one.nodes.map(({ id }) => id), one.mappings.length], [[nodeId(28)], EACH])
  const other = JSON.parse((await symport('status', '--mapping', '7', '--json')).stdout) as Listed
  assert.deepEqual([other.nodes.length, other.mappings.map(({ id }) => id)], [1, ['7']])
  // On a terminal, what has no room is counted; control-C ends it.
  const watch = ['status', '--watch', '1s', ...at]
  const { shown } = await onTerminal(t, stage, watch, { question: 'lines more', answer: '\x03' })
  if (hasTerminal) assert.match(shown, /500 nodes connected[\s\S]*2000 of 2000 mappings[\s\S]*lines more/)
  assert.ok(shown.length < 20_000, `${shown.length} characters`)
  await talker.during('the same three, over and over for 2 s', figures, async () => {
    const end = performance.now() + 2000
    while (performance.now() < end) await Promise.all([client.status(), client.nodes(), client.mappings()])
  })
  const socketPath = adminSocket(new StateFolder(state))
  await talker.during('`GET /metrics`', figures, async () => {
    const { status, text } = await ask(socketPath, 'GET', '/metrics')
    assert.equal(status, 200)
    assert.match(text, /^symport_nodes_connected 500$/m)
  })
  // That is every ten seconds.
  const written = (): number =>
    statSync(stage.path('state', 'statistics.json'), { throwIfNoEntry: false })?.mtimeMs ?? 0
  const last = written()
  await talker.during('until statistics are written', figures, async () => {
    await eventually(async () => assert.ok(written() > last))
  })

  // Another file: ten come, ten go, ten change; what is open elsewhere goes on.
  const gone = numbers(100, 110)
  const kept: Entry[] = first.filter(({ number }) => !gone.includes(number))
  const changed = kept.map((entry, index) => (index >= 50 && index < 60 ? { ...entry, wait: '1s' } : entry))
  configure([...changed, ...numbers(MAPPINGS, MAPPINGS + 10).map((number) => ({ number }))])
  const staying = await Promise.all([50, 55, 100, 900, 1999].map(visit))
  for (const visitor of staying) await visitor.line()
  const report = await talker.during(
    '`symport reload`',
    figures,
    async () => (await symport('reload', '--json')).stdout,
  )
  const { changes, restart } = JSON.parse(report) as { changes: string[]; restart: string[] }
  assert.equal(changes.length, 30, changes.join('\n'))
  assert.deepEqual(restart, [])
  for (const visitor of staying) {
    assert.equal(await visitor.ask('still there?'), 'still there?')
    visitor[Symbol.dispose]()
  }
  await answers(MAPPINGS + 3)
  await assert.rejects(visit(105), { code: 'ECONNREFUSED' })

  // At run time, with that many there already.
  const extra = (number: number): { listen: string; forward: string; nodes: string[] } => ({
    listen: `${addressOf(LISTEN + 1, number)}:${mapped}`,
    forward: `${addressOf(TARGET, number)}:${target}`,
    nodes: [nodeId(number)],
  })
  await talker.during('100 x `mappings add`, one after the other', figures, async () => {
    for (const number of numbers(0, 100)) await client.addMapping(extra(number))
  })
  await talker.during('400 x `mappings add`, 64 at a time', figures, async () => {
    const left = numbers(100, 500).values()
    const work = async (): Promise<void> => {
      for (const number of left) await client.addMapping(extra(number))
    }
    await Promise.all(numbers(0, 64).map(work))
  })
  using added = await Visitor.to(addressOf(LISTEN + 1, 444), mapped)
  assert.equal(await added.line(), addressOf(TARGET, 444))
  await figure('memory of the server at the end, with 2,500 mappings')

  // All over again.
  server.signal('SIGKILL')
  await server.exited
  configure(first)
  const again = performance.now()
  await serve('restart after `kill -9`')
  await connected(2 * NODES)
  figures.add('restart after `kill -9`, until all nodes are back', again)
  for (const number of some.slice(0, 50)) await answers(number)
  using back = await Visitor.to(addressOf(LISTEN + 1, 444), mapped)
  assert.equal(await back.line(), addressOf(TARGET, 444))
  assert.equal((await client.mappings()).length, MAPPINGS + 500)

  for (const line of figures.table()) t.diagnostic(line)
  // Far from what is usual: this machine may have other work.
  for (const [name, ms] of figures.times) assert.ok(ms < 30_000, `${name}: ${ms} ms`)
  for (const [name, ms] of figures.stalls) assert.ok(ms < 3000, `${name}: somebody waited ${ms} ms`)
})

interface Listed {
  readonly nodes: readonly NodeStatus[]
  readonly mappings: readonly MappingStatus[]
}

const hasTerminal = findProgram('python3') !== undefined

/** What a terminal of 24 lines shows of a command. Without Python there is none, and nothing is shown. */
async function onTerminal(
  t: TestContext,
  stage: Stage,
  args: readonly string[],
  asked: { question: string; answer: string },
): Promise<{ status: number | null; shown: string }> {
  const child = hasTerminal ? await startOnTerminal(t, stage, args, asked) : undefined
  if (!child) return { status: 0, shown: '' }
  const { status } = await child.exited
  return { status, shown: child.lines.join('\n') }
}

/** What a process has used so far, by proc(5). */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /s, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

/** What was measured, in the order in which it was. */
class Figures {
  readonly times: Map<string, number> = new Map()
  readonly stalls: Map<string, number> = new Map()
  readonly #rows: [string, string][] = []

  set(name: string, value: string): void {
    this.#rows.push([name, value])
  }

  /** How long it took since `from`. */
  add(name: string, from: number): void {
    const ms = performance.now() - from
    this.times.set(name, ms)
    this.set(name, `${Math.round(ms)} ms`)
  }

  async time<T>(name: string, act: () => Promise<T>): Promise<T> {
    const from = performance.now()
    const result = await act()
    this.add(name, from)
    return result
  }

  table(): string[] {
    return this.#rows.map(([name, value]) => `| ${name} | ${value} |`)
  }
}

/** Somebody who came in at a mapping. */
class Visitor {
  readonly #socket: Socket
  #text = ''
  #wake = (): void => {}

  static async to(host: string, port: number): Promise<Visitor> {
    const socket = connect({ host, port, noDelay: true })
    await once(socket, 'connect')
    return new Visitor(socket)
  }

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => {
      this.#text += text
      this.#wake()
    })
    socket.on('close', () => this.#wake())
    socket.on('error', () => {})
  }

  /** What comes next. */
  async line(): Promise<string> {
    while (!this.#text.includes('\n')) {
      if (this.#socket.destroyed) throw new Error(`it ended after "${this.#text}"`)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    const end = this.#text.indexOf('\n')
    const line = this.#text.slice(0, end)
    this.#text = this.#text.slice(end + 1)
    return line
  }

  /** Says it, and answers what comes back. */
  async ask(text: string): Promise<string> {
    this.#socket.write(`${text}\n`)
    return await this.line()
  }

  [Symbol.dispose](): void {
    this.#socket.destroy()
  }
}

/** Asks again and again through a mapping: whoever keeps the server from its work keeps the answer waiting. */
class Talker {
  readonly #visitor: Visitor
  #waits: number[] = []
  #over = false

  static async start(visitor: Visitor): Promise<Talker> {
    await visitor.line()
    const talker = new Talker(visitor)
    void talker.#talk()
    return talker
  }

  private constructor(visitor: Visitor) {
    this.#visitor = visitor
  }

  async #talk(): Promise<void> {
    while (!this.#over) {
      const from = performance.now()
      const answer = await this.#visitor.ask('ping').catch(() => undefined)
      if (answer !== 'ping') return
      this.#waits.push(performance.now() - from)
      await delay(1)
    }
  }

  async during<T>(name: string, figures: Figures, act: () => Promise<T>): Promise<T> {
    this.#waits = []
    const from = performance.now()
    const result = await act()
    const ms = performance.now() - from
    const waits = this.#waits.sort((a, b) => a - b)
    const [median = Number.NaN, longest = Number.NaN] = [waits[waits.length >> 1], waits.at(-1)]
    figures.times.set(name, ms)
    figures.stalls.set(name, longest)
    figures.set(
      name,
      `${Math.round(ms)} ms; a ping-pong meanwhile ${median.toFixed(1)} ms, at worst ${longest.toFixed(0)}`,
    )
    return result
  }

  [Symbol.dispose](): void {
    this.#over = true
    this.#visitor[Symbol.dispose]()
  }
}
