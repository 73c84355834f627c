import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { type TestContext, test } from 'node:test'
import { logLine, run } from '../helpers/e2e/cli.ts'
import type { Child } from '../helpers/system/child.ts'
import { makeCertificates, startCaddyFront, startNginxFront, writeCertificates } from '../helpers/system/fronts.ts'
import { eventually, freePort } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, startSymport } from '../helpers/system/symport.ts'

/** What tiny-ws-tunnel's manual does, from an empty folder to a mapping that works, by the command line and with curl. */

const ID = 'test-agent-1'
const KEY = 'ta1-key'
const NOTE = 'a local agent'
const certificates = makeCertificates()

interface Totals {
  readonly bytesIn: number
  readonly bytesOut: number
  readonly connections: number
}

interface Status {
  readonly nodes: readonly {
    readonly id: string
    readonly connected: boolean
    readonly instances: readonly { readonly transport: string; readonly remote: string }[]
    readonly totals: Totals
  }[]
  readonly mappings: readonly {
    readonly id: string
    readonly note: string
    readonly state: string
    readonly totals: Totals
  }[]
}

/** The machine of the operator: one folder, one server, one node. */
class Desk {
  readonly #curl: string
  readonly #stage: Stage
  readonly #state: readonly string[]
  readonly port: number
  /** Where the service is, and where the mapping. */
  readonly target: number
  readonly mapped: number

  private constructor(stage: Stage, curl: string, ports: readonly [number, number, number]) {
    this.#stage = stage
    this.#curl = curl
    this.#state = ['--state', stage.path('state')]
    ;[this.port, this.target, this.mapped] = ports
  }

  static async open(t: TestContext, stage: Stage, curl: string): Promise<Desk> {
    return new Desk(stage, curl, [await freePort(), await serveAgents(t), await freePort()])
  }

  async startServer(args: readonly string[] = []): Promise<Child> {
    const where = ['--host', '127.0.0.1', '--port', String(this.port)]
    const child = await startSymport(this.#stage, ['server', ...where, ...this.#state, ...args])
    await logged(child, 'listening')
    return child
  }

  async symport(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await run(this.#stage, [...args, ...this.#state])
    assert.equal(status, 0, `symport ${args.join(' ')}: ${stderr}`)
    return stdout
  }

  async startNode(url: string): Promise<Child> {
    const flags = ['--server', url, '--id', ID, '--uuid', KEY]
    const child = await startSymport(this.#stage, ['node', ...flags])
    await logged(child, 'connected')
    return child
  }

  addMapping(): Promise<string> {
    return this.symport(
      ...['mappings', 'add', `:${this.mapped}`, `127.0.0.1:${this.target}`],
      '--node',
      ID,
      '--note',
      NOTE,
    )
  }

  async status(): Promise<Status> {
    return JSON.parse(await this.symport('status', '--json')) as Status
  }

  /** What a service says to curl, and the bytes that curl has sent and got. */
  async curl(port: number, path: string): Promise<{ body: string; sent: number; got: number }> {
    const sizes = '\n%{http_code} %{size_request} %{size_upload} %{size_header} %{size_download}'
    const args = ['-q', '--silent', '--show-error', '--max-time', '20', '--noproxy', '*', '--write-out', sizes]
    const output = await this.#stage.must(this.#curl, [...args, `http://127.0.0.1:${port}${path}`])
    const end = output.lastIndexOf('\n')
    const [code, request = 0, upload = 0, header = 0, download = 0] = output
      .slice(end + 1)
      .split(' ')
      .map(Number)
    assert.equal(code, 200)
    return { body: output.slice(0, end), sent: request + upload, got: header + download }
  }

  /** curl gets the same from either port, and the figures grow by what it moved, to the byte. */
  async checkMapping(): Promise<void> {
    const before = await this.#totals()
    let [sent, got] = [0, 0]
    for (const path of ['/user-agent', '/large']) {
      const [direct, mapped] = [await this.curl(this.target, path), await this.curl(this.mapped, path)]
      assert.equal(mapped.body, direct.body)
      sent += mapped.sent
      got += mapped.got
    }
    assert.ok(sent > 0 && got > LARGE)
    await eventually(async () => {
      const now = await this.#totals()
      for (const what of ['node', 'mapping'] as const) {
        assert.equal(now[what].bytesIn - before[what].bytesIn, sent, `${what}, in`)
        assert.equal(now[what].bytesOut - before[what].bytesOut, got, `${what}, out`)
        assert.equal(now[what].connections - before[what].connections, 2, what)
      }
    }, 3_000)
  }

  async #totals(): Promise<{ node: Totals; mapping: Totals }> {
    const { nodes, mappings } = await this.status()
    const [node, mapping] = [nodes.find(({ id }) => id === ID), mappings.find(({ note }) => note === NOTE)]
    assert.ok(node?.connected && mapping?.state === 'ready', JSON.stringify({ nodes, mappings }))
    return { node: node.totals, mapping: mapping.totals }
  }
}

const LARGE = 300_000

/** A service that says who asks, and one long answer. Gives its port. */
async function serveAgents(t: TestContext): Promise<number> {
  const server = createServer((request, response) => {
    response.setHeader('connection', 'close')
    if (request.url === '/large') response.end('0123456789'.repeat(LARGE / 10))
    else response.end(JSON.stringify({ 'user-agent': request.headers['user-agent'] }))
  })
  const port = await freePort()
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return port
}

test('from an empty folder to a mapping that curl uses, and the same after kill -9 of the server', {
  timeout: 100_000,
}, async (t) => {
  const programs = requirePrograms(t, ['curl'])
  if (programs === undefined) return
  const desk = await Desk.open(t, new Stage(t), programs.curl)
  const server = await desk.startServer()
  await desk.symport('nodes', 'add', ID, KEY)
  const node = await desk.startNode(`ws://127.0.0.1:${desk.port}/symport`)
  await desk.addMapping()
  await desk.checkMapping()
  const { nodes } = await desk.status()
  assert.equal(nodes[0]?.instances[0]?.transport, 'ws')
  assert.match(String(nodes[0]?.instances[0]?.remote), /^127\.0\.0\.1:\d+$/)

  const seen = node.lines.length
  await server.stop('SIGKILL')
  const again = await desk.startServer()
  await logLine(node, 'the second connection', ({ msg }) => msg === 'connected', seen)
  // What was added is there.
  await eventually(() => desk.checkMapping(), 10_000)
  // And all of it is done once more.
  await desk.symport('mappings', 'remove', (await desk.status()).mappings[0]?.id ?? '')
  await desk.symport('nodes', 'remove', ID)
  await node.stop()
  await desk.symport('nodes', 'add', ID, KEY)
  await desk.startNode(`ws://127.0.0.1:${desk.port}/symport`)
  await desk.addMapping()
  await desk.checkMapping()
  assert.ok(again.running)
})

for (const front of ['nginx', 'caddy'] as const) {
  test(`the same through ${front}, before and after kill -9 of the server`, { timeout: 100_000 }, async (t) => {
    const programs = requirePrograms(t, ['curl', front])
    if (programs === undefined) return
    const stage = new Stage(t)
    writeCertificates(stage, await certificates)
    const desk = await Desk.open(t, stage, programs.curl)
    const options = { program: programs[front], server: desk.port, idle: '5m' }
    const { plain } = await (front === 'nginx' ? startNginxFront : startCaddyFront)(stage, options)
    const trust = ['--trusted-proxies', '127.0.0.1', ...(front === 'caddy' ? ['--real-ip-header', 'Tiny-Real-IP'] : [])]
    const server = await desk.startServer(trust)
    await desk.symport('nodes', 'add', ID, KEY)
    const node = await desk.startNode(`ws://localhost:${plain}/symport`)
    await desk.addMapping()
    await desk.checkMapping()

    const seen = node.lines.length
    await server.stop('SIGKILL')
    await desk.startServer(trust)
    await logLine(node, 'the second connection', ({ msg }) => msg === 'connected', seen)
    await eventually(() => desk.checkMapping(), 10_000)
  })
}
