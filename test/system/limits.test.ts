import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { Curl } from '../helpers/system/curl.ts'
import { eventually, freePort } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { CLI, startNode, startServer, symportEnvironment } from '../helpers/system/symport.ts'

/** Limits that real programs measure, over 10 s, through real processes. */

const SECONDS = 10
const MB = 1_000_000

function near(actual: number, expected: number, share: number, what: string): void {
  const off = Math.round((actual / expected - 1) * 1000) / 10
  assert.ok(Math.abs(actual - expected) <= expected * share, `${what}: ${actual}, ${off} % off ${expected}`)
}

interface Mapping {
  readonly to: number
  readonly listen?: string
  readonly limits: string
}

/** A server with these mappings in its file, and a node. Answers their ports. */
async function mapped(stage: Stage, mappings: readonly Mapping[], all = ''): Promise<number[]> {
  const file = stage.path('server.toml')
  const ports: number[] = []
  const tables: string[] = [all]
  for (const { to, listen = 'tcp', limits } of mappings) {
    const port = await freePort()
    ports.push(port)
    tables.push(
      `[[mapping]]\nlisten = "${listen}://127.0.0.1:${port}"\nforward = "${listen}://127.0.0.1:${to}"\n[mapping.limits]\n${limits}\n`,
    )
  }
  writeFileSync(file, tables.join('\n'))
  const server = await startServer(stage, ['--config', file])
  await startNode(stage, server.address)
  return ports
}

async function iperf(t: TestContext, stage: Stage) {
  const programs = requirePrograms(t, ['iperf3'])
  if (!programs) return undefined
  const start = async (): Promise<number> => {
    const port = await freePort()
    const child = await stage.start(programs.iperf3, ['-s', '-B', '127.0.0.1', '-p', String(port), '--forceflush'])
    await child.line((line) => /Server listening/.exec(line)?.[0], '"Server listening"')
    return port
  }
  /** Bytes per second that the receiver has got in so many seconds. */
  const measureFor = async (seconds: number, port: number, ...more: string[]): Promise<number> => {
    const args = ['-c', '127.0.0.1', '-p', String(port), '-t', String(seconds), '--json', ...more]
    const { end } = JSON.parse(await stage.must(programs.iperf3, args)) as {
      end: { sum_received?: { bytes: number; seconds: number }; sum?: { bytes: number; lost_percent: number } }
    }
    return (end.sum_received?.bytes ?? 0) / seconds
  }
  const measure = (port: number, ...more: string[]): Promise<number> => measureFor(SECONDS, port, ...more)
  return { start, measure, measureFor, program: programs.iperf3 }
}

test('iperf3 gets what the limit says both ways, within 5 % over 10 s, beside one that is not limited', {
  timeout: 120_000,
}, async (t) => {
  const stage = new Stage(t)
  const tools = await iperf(t, stage)
  if (!tools) return
  const [limited, free] = [await tools.start(), await tools.start()]
  const [a = 0, b = 0] = await mapped(stage, [
    { to: limited, limits: 'in = "2MB/s"\nout = "5MB/s"' },
    { to: free, limits: '' },
  ])
  const alone = await tools.measureFor(3, b, '--reverse')
  const [down, beside] = await Promise.all([tools.measure(a, '--reverse'), tools.measure(b, '--reverse')])
  near(down, 5 * MB, 0.05, 'down')
  // What another program does to it that moves 5 MB/s: the machine has two cores for the five of them.
  assert.ok(beside > 0.5 * alone, `${beside} beside a limited one, ${alone} in 3 s alone`)
  near(await tools.measure(a), 2 * MB, 0.05, 'up')
})

test('a visitor and a node get what their limits say, within 5 % over 10 s', { timeout: 60_000 }, async (t) => {
  const stage = new Stage(t)
  const tools = await iperf(t, stage)
  if (!tools) return
  const [one, other] = [await tools.start(), await tools.start()]
  const [visited = 0, shared = 0] = await mapped(
    stage,
    [
      { to: one, limits: 'visitor = { out = "2MB/s" }' },
      { to: other, limits: '' },
    ],
    '[node-limits]\nout = "6MB/s"\n',
  )
  // Eight at once share what one has.
  const [visitor, rest] = await Promise.all([
    tools.measure(visited, '--reverse', '-P', '8'),
    tools.measure(shared, '--reverse'),
  ])
  near(visitor, 2 * MB, 0.05, 'eight of one visitor')
  near(visitor + rest, 6 * MB, 0.05, 'all of the node')
})

test('a slow download is smooth from its first second on, and two are equal', { timeout: 60_000 }, async (t) => {
  const programs = requirePrograms(t, ['curl'])
  if (!programs) return
  const stage = new Stage(t)
  const origin = createServer((_request, response) => {
    response.writeHead(200)
    const chunk = Buffer.alloc(65_536)
    const more = (): void => {
      while (!response.destroyed && response.write(chunk)) {}
    }
    response.on('drain', more)
    more()
  })
  await new Promise<void>((resolve) => void origin.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    origin.closeAllConnections()
    origin.close()
  })
  const [port = 0] = await mapped(stage, [{ to: (origin.address() as AddressInfo).port, limits: 'out = "20kB/s"' }])
  const seconds: number[] = []
  const download = async (): Promise<number> => {
    let bytes = 0
    const answer = await fetch(`http://127.0.0.1:${port}/`, { signal: AbortSignal.timeout(SECONDS * 1000) })
    const begun = performance.now()
    try {
      for await (const chunk of answer.body ?? []) {
        bytes += chunk.length
        const second = Math.floor((performance.now() - begun) / 1000)
        seconds[second] = (seconds[second] ?? 0) + chunk.length
      }
    } catch {
      // The time is over.
    }
    return bytes
  }
  const [one, other] = await Promise.all([download(), download()])
  near(one + other, 20_000 * SECONDS, 0.05, 'both')
  near(one, other, 0.1, 'one and the other')
  for (const [second, bytes] of seconds.slice(0, SECONDS - 1).entries()) near(bytes, 20_000, 0.3, `second ${second}`)
  const curl = new Curl(stage, programs.curl)
  assert.equal((await curl.run('--max-time', '1', '-o', '/dev/null', `http://127.0.0.1:${port}/`)).status, 28)
})

test('iperf3 -u loses what is more than the limit, and nothing else', { timeout: 60_000 }, async (t) => {
  const stage = new Stage(t)
  const tools = await iperf(t, stage)
  if (!tools) return
  const target = await tools.start()
  // Its control connection is TCP, on the same port.
  const port = await freePort()
  const file = stage.path('server.toml')
  writeFileSync(
    file,
    `[[mapping]]\nlisten = "tcp://127.0.0.1:${port}"\nforward = "tcp://127.0.0.1:${target}"\n` +
      `[[mapping]]\nlisten = "udp://127.0.0.1:${port}"\nforward = "udp://127.0.0.1:${target}"\n` +
      '[mapping.limits]\nin = "1MB/s"\n',
  )
  const server = await startServer(stage, ['--config', file])
  await startNode(stage, server.address)
  const run = async (rate: string): Promise<{ bytes: number; lost: number }> => {
    const args = ['-c', '127.0.0.1', '-p', String(port), '-u', '-b', rate, '-l', '1200', '--json']
    const text = await stage.must(tools.program, [...args, '-t', String(SECONDS)])
    const { sum } = (JSON.parse(text) as { end: { sum: { bytes: number; lost_percent: number } } }).end
    return { bytes: sum.bytes, lost: sum.lost_percent }
  }
  const over = await run('16M')
  near((over.bytes * (100 - over.lost)) / 100, MB * SECONDS, 0.05, 'bytes that came')
  const below = await run('4M')
  assert.ok(below.lost < 1, `${below.lost} % lost below the limit`)
})

test('a quota is kept over kill -9, and goes on when it is raised', { timeout: 60_000 }, async (t) => {
  const programs = requirePrograms(t, ['curl'])
  if (!programs) return
  const stage = new Stage(t)
  const body = Buffer.alloc(500_000)
  const origin = createServer((_request, response) => void response.end(body))
  await new Promise<void>((resolve) => void origin.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    origin.closeAllConnections()
    origin.close()
  })
  const { port: to } = origin.address() as AddressInfo
  const port = await freePort()
  const curl = new Curl(stage, programs.curl)
  const file = stage.path('server.toml')
  const say = (quota: string): void =>
    writeFileSync(
      file,
      `[[mapping]]\nlisten = "127.0.0.1:${port}"\nforward = "127.0.0.1:${to}"\n[mapping.limits]\nquota = "${quota}"\n`,
    )
  const symport = (...args: string[]): Promise<string> =>
    stage.must(process.execPath, [CLI, ...args, '--state', stage.path('server-state')], {
      env: symportEnvironment(stage),
    })
  const used = async (): Promise<number> => {
    const [mapping] = JSON.parse(await symport('mappings', 'list', '--json')) as { quotaUsed?: number }[]
    return mapping?.quotaUsed ?? 0
  }
  const get = async (): Promise<number | null> =>
    (await curl.run('-o', '/dev/null', `http://127.0.0.1:${port}/`)).status

  say('1200kB')
  const first = await startServer(stage, ['--config', file])
  const node = await startNode(stage, first.address)
  assert.equal(await get(), 0)
  assert.equal(await get(), 0)
  const before = await used()
  assert.ok(before > 1_000_000 && before < 1_010_000, `${before} bytes`)
  // It is written every 10 s.
  const kept = `${stage.path('server-state')}/statistics.json`
  await eventually(
    async () => assert.match(readFileSync(kept, 'utf8'), /"month": \{\s+"of": "[0-9-]+",\s+"bytes": 10/),
    15_000,
  )
  await first.child.stop('SIGKILL')
  await node.stop('SIGKILL')

  const second = await startServer(stage, ['--config', file])
  await startNode(stage, second.address)
  assert.equal(await used(), before)
  assert.notEqual(await get(), 0, 'it ends in the middle')
  assert.notEqual(await get(), 0, 'it does not begin')
  say('10MB')
  await symport('reload')
  assert.equal(await get(), 0)
})
