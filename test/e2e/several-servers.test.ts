import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { hostname, networkInterfaces } from 'node:os'
import { describe, test } from 'node:test'
import * as v from 'valibot'
import { listOf, mappingStatus, nodeStatus, serverStatus } from '../../lib/admin/schemas.ts'
import { boundAt, logLine, logs, SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { open, startEcho, visit } from '../helpers/e2e/talk.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, logged } from '../helpers/system/symport.ts'

const statusShape = v.object({ server: serverStatus, nodes: listOf(nodeStatus), mappings: listOf(mappingStatus) })

function nameOf({ host, port }: Address): string {
  return `${host}:${port}`
}

describe('a node of several servers', { concurrency: 3 }, () => {
  test('has a main connection of its own to each, and one that is away does not disturb the others', async (t) => {
    const stage = new Stage(t)
    const echo = await startEcho(stage)
    const mapping = ['--listener', `tcp://127.0.0.1:0,${echo}`]
    const [one, two] = await Promise.all(
      ['one', 'two'].map((state) => startServer(stage, mapping, { state, secret: SECRET })),
    )
    assert.ok(one && two)
    const names = [one, two].map(({ at }) => nameOf(at))
    const nobody = '127.0.0.1:1'
    const args = ['node', nobody, ...names, '--uuid', SECRET, '--state', stage.path('node')]
    const node = await start(stage, [...args, '-R', echo.replace('tcp://', 'tcp://echo:pw@')])
    for (const name of names) await logged(node, 'connected', 0, ({ server }) => server === name)
    const { level } = await logLine(
      node,
      'that one is away',
      ({ server, delay }) => server === nobody && delay !== undefined,
    )
    assert.equal(level, 'warn')
    // What the servers map, and what the node asks of each.
    for (const { server } of [one, two]) assert.equal(await visit(stage, await boundAt(server)), 'hello')
    for (const name of names) {
      const { listen } = await logged(node, 'listener ready', 0, ({ server }) => server === name)
      assert.equal(listen, 'channel://echo')
    }

    const from = node.lines.length
    one.server.killGroup()
    await logLine(node, 'that it is lost', ({ server }) => server === names[0], from)
    assert.equal(await visit(stage, await boundAt(two.server)), 'hello')
    assert.deepEqual(await node.stop(), { status: 0, signal: null })
    await logged(two.server, 'node is about to stop')
    const unnamed = logs(node).filter(({ server, signal, msg }) => !server && !signal && msg !== 'stopped')
    assert.deepEqual(unnamed, [])
  })

  test('takes them from a file, each with its own secret and listeners, one of them twice', async (t) => {
    const stage = new Stage(t)
    const echo = await startEcho(stage)
    const target = echo.replace('tcp://', '')
    const allow = ['--allow', '127.0.0.1:*']
    const [one, two] = await Promise.all([
      startServer(stage, allow, { state: 'one', secret: `${SECRET}-1` }),
      startServer(stage, allow, { state: 'two', secret: `${SECRET}-2` }),
    ])
    const names = [one, two].map(({ at }) => nameOf(at))
    const file = stage.path('node.toml')
    const client = (number: number, ...lines: string[]): string =>
      ['[[client]]', `server = "${names[number - 1]}"`, `uuid = "${SECRET}-${number}"`, ...lines].join('\n')
    writeFileSync(
      file,
      [
        'role = "node"',
        client(1, `remote = ["tcp://echo:pw@${target}"]`),
        client(1, 'local = ["tcp://echo:pw@127.0.0.1:0"]'),
        client(2, `local = ["0:${target}"]`, 'id = "other"'),
        client(1, 'id = "third"'),
      ].join('\n'),
      { mode: 0o600 },
    )
    const state = ['--state', stage.path('node')]
    const node = await start(stage, ['node', '-c', file, ...state, '--admin', '127.0.0.1:0'])
    await logged(one.server, 'node connected', 0, () => true)
    await logged(one.server, 'node connected', 0, ({ node: id }) => id === 'third')
    await logged(two.server, 'node connected', 0, ({ node: id }) => id === 'other')
    await logged(node, 'listener ready', 0, ({ listen }) => listen === 'channel://echo')
    await logged(node, 'connected', 0, ({ server }) => server === names[1])
    const ready = (accept: (forward: string) => boolean): Promise<string> =>
      logged(node, 'listener ready', 0, ({ listen, forward }) => {
        return String(listen).startsWith('tcp://') && accept(String(forward))
      }).then(({ listen }) => String(listen))
    assert.equal(await visit(stage, await ready((forward) => forward === 'channel://echo')), 'hello')
    assert.equal(await visit(stage, await ready((forward) => forward === echo)), 'hello')

    const { stdout, stderr } = await runHere(stage, ['status', '--json', ...state])
    assert.equal(stderr, '')
    const status = v.parse(statusShape, JSON.parse(stdout))
    assert.deepEqual([status.server.address, status.server.nodes.connected], [names.join(', '), 4])
    assert.deepEqual(
      status.nodes.map(({ id, connected, instances }) => [id, connected, instances.length]),
      [
        [names[0], true, 3],
        [names[1], true, 1],
      ],
    )
    assert.deepEqual(
      status.mappings.map(({ id, nodes, state: is }) => [id, nodes, is]),
      [
        ['2.1', [names[0]], 'ready'],
        ['3.1', [names[1]], 'ready'],
      ],
    )
    assert.equal(status.mappings[1]?.totals.connections, 1)
    // At the server, two entries with one id are two instances of one node, and an entry with its own is another node.
    const there = await runHere(stage, ['status', '--json', '--state', stage.path('one')])
    const { nodes } = v.parse(statusShape, JSON.parse(there.stdout))
    assert.deepEqual(
      nodes.map(({ id, connected, instances }) => [id, connected, instances.length]).sort(),
      [
        [hostname().slice(0, 64), true, 2],
        ['third', true, 1],
      ].sort(),
    )
    const all = nodes.flatMap(({ instances }) => instances)
    for (const key of ['instance', 'remote'] as const) assert.equal(new Set(all.map((one) => one[key])).size, 3, key)

    const chosen = await start(stage, ['node', '-c', file, '--server', `tcp://${names[1]}`, '--state', stage.path('b')])
    await logged(chosen, 'connected')
    await chosen.stop()
    assert.deepEqual(
      logs(chosen).flatMap(({ server }) => (server === names[0] ? [server] : [])),
      [],
    )
  })

  test('a file of wsp without auth is told which key to add', async (t) => {
    const stage = new Stage(t)
    const file = stage.path('wspc.json')
    writeFileSync(file, JSON.stringify({ client: [{ server: 'ws://127.0.0.1:1', local: ['tcp://a:b@127.0.0.1:0'] }] }))
    const { status, stderr } = await runHere(stage, ['node', '-c', file, '--state', stage.path('node')])
    assert.equal(status, 2)
    assert.match(stderr, /^symport: the secret of ws:\/\/127\.0\.0\.1:1\/ is missing: [^\n]*auth[^\n]*$/)
  })

  test('what makes no sense with several is one line and status 2, before anything is bound', async (t) => {
    const stage = new Stage(t)
    for (const [args, why] of [
      [
        ['a', 'b', '-L', '1:c:2'],
        /^-L with 2 servers: connections could go to one of them only\. Say which in a file, /,
      ],
      [['--server', 'a', '--host', 'b'], 'symport: --host and --server are both given: keep one'],
    ] as const) {
      const { status, stdout, stderr } = await runHere(stage, ['node', ...args, '--state', stage.path('node')])
      assert.deepEqual([status, stdout], [2, ''], args.join(' '))
      if (typeof why === 'string') assert.equal(stderr, why)
      else assert.match(stderr.replace(/^symport: /, ''), why)
    }
  })

  test("the tunnel of each reaches its machine's LAN, or what --allow says instead", async (t) => {
    const lan = Object.values(networkInterfaces())
      .flatMap((all) => all ?? [])
      .find(
        ({ family, internal, address }) => family === 'IPv4' && !internal && !address.startsWith('169.254.'),
      )?.address
    const stage = new Stage(t)
    const { at } = await startServer(stage)
    const file = stage.path('node.toml')
    const client = (...lines: string[]): string => ['[[client]]', `server = "${nameOf(at)}"`, ...lines].join('\n')
    writeFileSync(
      file,
      [
        `uuid = "${SECRET}"`,
        client('remote = "tunnel://lan:pw@"'),
        client('remote = "tunnel://named:pw@"', 'allow = "127.0.0.1:*"'),
        client('dynamic = ["http://lan:pw@127.0.0.1:0", "http://named:pw@127.0.0.1:0"]'),
      ].join('\n'),
      { mode: 0o600 },
    )
    const node = await start(stage, ['node', '-c', file, '--state', stage.path('node')])
    const listening = async (name: string): Promise<string> => {
      await logged(node, 'listener ready', 0, ({ listen }) => listen === `channel://${name}`)
      const { listen } = await logged(node, 'listener ready', 0, ({ forward }) => forward === `tunnel://${name}`)
      return String(listen).replace(/^http:/, 'tcp:')
    }
    const [byLan, byName] = [await listening('lan'), await listening('named')]
    const here = await listenOn(stage, '127.0.0.1')
    assert.deepEqual([await answerOf(stage, byLan, here), await answerOf(stage, byName, here)], ['403', '200'])
    if (lan === undefined) return t.skip('this machine has no address on a network')
    const there = await listenOn(stage, lan)
    assert.deepEqual([await answerOf(stage, byLan, there), await answerOf(stage, byName, there)], ['200', '403'])
  })
})

/** A listener that ends what connects. */
async function listenOn(stage: Stage, host: string): Promise<string> {
  const server = createServer((socket) => socket.on('error', () => {}).end())
  server.listen({ host, port: 0 })
  stage.defer(() => server.close())
  await once(server, 'listening')
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  return `${host}:${address.port}`
}

/** The status with which a proxy answers the wish for a connection. */
async function answerOf(stage: Stage, proxy: string, target: string): Promise<string | undefined> {
  const socket = await open(stage, proxy)
  socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`)
  const [bytes]: Buffer[] = await once(socket, 'data')
  socket.destroy()
  return /^HTTP\/1\.1 (\d+) /.exec(String(bytes))?.[1]
}
