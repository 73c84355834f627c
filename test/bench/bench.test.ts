import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { describe, it } from 'node:test'
import { Bench } from './bench.ts'
import { DelayLines } from './load/delay-line.ts'
import { startHolder } from './load/holder.ts'
import { openIdle } from './load/idle.ts'
import { memoryMissing, parseRss, residentKib } from './load/memory.ts'
import { pingPong } from './load/ping-pong.ts'
import { startEcho, startTarget } from './load/sockets.ts'
import { parseWrk } from './load/wrk.ts'
import { parseOptions, UsageError } from './options.ts'
import { atLeast, Series, under } from './part.ts'
import { PARTS } from './parts/index.ts'
import { affordable } from './parts/p6-many-idle.ts'
import { Processes } from './processes.ts'
import { Progress } from './progress.ts'
import { median, medianRatio, percentile } from './statistics.ts'
import { formatTable } from './table.ts'

const WRK_REPORT = `Running 3s test @ http://127.0.0.1:41234/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.02ms    2.06ms  44.64ms   99.69%
    Req/Sec    69.37k     1.06k   70.53k    85.71%
  Latency Distribution
     50%  827.00us
     75%    0.91ms
     90%    1.07ms
     99%    1.20s
  145000 requests in 2.10s, 21.30MB read
Requests/sec:  69047.62
Transfer/sec:     10.14MB
`

const SMAPS_ROLLUP = `55a0b0c00000-7ffd1e5f9000 ---p 00000000 00:00 0                          [rollup]
Rss:               44412 kB
Pss:               40101 kB
Pss_Anon:          21764 kB
`

describe('bench', () => {
  it('takes the middle value, and the mean of the middle two', () => {
    assert.equal(median([3, 1, 2]), 2)
    assert.equal(median([4, 1, 2, 3]), 2.5)
    assert.equal(percentile([5, 1, 4, 2, 3], 0.99), 5)
    assert.equal(percentile([5, 1, 4, 2, 3], 0.5), 3)
  })

  it('compares pair by pair before it takes the median', () => {
    assert.equal(medianRatio([10, 2, 9], [5, 1, 3]), 2)
    assert.ok(Number.isNaN(medianRatio([10], [])))
  })

  it('reads rates and latencies in each of the units that wrk prints', () => {
    assert.deepEqual(parseWrk(WRK_REPORT), { requestsPerSecond: 69047.62, p50Ms: 0.827, p99Ms: 1200 })
  })

  it('takes no figure from a wrk run with errors', () => {
    const errors = '  Socket errors: connect 0, read 12, write 0, timeout 0\n'
    assert.throws(() => parseWrk(WRK_REPORT + errors), /Socket errors: connect 0, read 12/)
  })

  it('reads what a process has in memory', () => {
    assert.equal(parseRss(SMAPS_ROLLUP), 44_412)
    assert.throws(() => parseRss(''), /no resident memory/)
  })

  it('holds as many connections as the open files allow, in whole thousands', () => {
    assert.equal(affordable(10_000, Number.POSITIVE_INFINITY), 10_000)
    assert.equal(affordable(10_000, 10_200), 10_000)
    assert.equal(affordable(10_000, 10_199), 9_000)
    assert.equal(affordable(10_000, 1_024), 0)
  })

  it('holds connections in a process of its own, whose memory grows by them', { skip: memoryMissing() }, async () => {
    const processes = new Processes()
    try {
      const holder = await startHolder(processes)
      const before = residentKib(holder.pid)
      using _idle = await openIdle(holder.port, 200)
      assert.ok(residentKib(holder.pid) > before)
    } finally {
      await processes.close()
    }
  })

  it('opens a tunnel by the path that it is given, and a delay line is one', async () => {
    const processes = new Processes()
    const bench = new Bench(
      { rounds: 1, quick: true, profile: undefined, only: undefined },
      processes,
      new Progress(process.stderr),
    )
    try {
      await using echo = await startEcho()
      await using lines = new DelayLines(processes, { delayMs: 20, bitsPerSecond: 1e9 })
      const times = await bench.withTunnels(
        ['direct'],
        [echo.port],
        async ([tunnel]) => {
          assert.ok(tunnel)
          assert.notEqual(tunnel.ports[0], echo.port)
          return await pingPong(tunnel.ports[0] ?? 0, (made) => made < 3)
        },
        lines.path,
      )
      assert.equal(times.length, 3)
      for (const microseconds of times) assert.ok(microseconds >= 40_000, `${microseconds} us`)
    } finally {
      await processes.close()
    }
  })

  it('says whether a goal is met, and says neither without a reference', () => {
    const series = new Series()
    series.add('rate', 'symport', 30)
    const goal = atLeast(2, 'x ssh')
    const row = { what: 'rate', unit: '/s', against: 'ssh', goal } as const
    assert.equal(series.ratioRow('rate', row).met, undefined)
    series.add('rate', 'ssh', 10)
    assert.equal(series.ratioRow('rate', row).met, true)
    assert.equal(series.valueRow('rate', { what: 'rate', unit: '/s', goal: under(30, '/s') }).met, false)
  })

  it('puts another figure than that of ssh beside where it is told to', () => {
    const series = new Series()
    series.add('KiB', 'symport', 6)
    series.add('KiB', 'direct', 4)
    const row = series.valueRow('KiB', { what: 'memory', unit: 'KiB', beside: 'direct', goal: under(8, 'KiB') })
    assert.deepEqual([row.reference, row.against, row.ratio, row.met], [4, 'direct', 1.5, true])
    assert.equal(series.plainRow('KiB', { what: 'memory', unit: 'KiB' }).against, undefined)
  })

  it('prints what is missing as a dash, and colours only when asked', () => {
    const series = new Series()
    series.add('rate', 'symport', 1234.5)
    const row = series.ratioRow('rate', { what: 'rate', unit: '/s', against: 'ssh', goal: atLeast(2, 'x ssh') })
    const part = { id: 'P0', title: '', command: '', rounds: 1, rows: [row], series: {} }
    const [head, line] = formatTable([part], false).split('\n')
    assert.equal(head, 'part  what   symport  reference  ratio  goal        met')
    assert.equal(line, 'P0    rate  1,235 /s          -      -  >= 2 x ssh  -')
    assert.ok(formatTable([part], true).includes('\x1b[1m'))
  })

  it('runs the parts that are named, in their own order', () => {
    const options = parseOptions(['p3', 'P1', '--rounds', '7'], PARTS)
    assert.deepEqual(
      options.parts.map(({ id }) => id),
      ['P1', 'P3'],
    )
    assert.equal(options.rounds, 7)
    assert.equal(parseOptions([], PARTS).parts.length, PARTS.length)
  })

  it('compares those that --only names, and profiles symport over tcp unless told otherwise', () => {
    const only = (...args: string[]) => parseOptions(args, PARTS).only
    assert.equal(only(), undefined)
    assert.deepEqual(only('--only', 'tcp, SSH'), ['symport', 'ssh'])
    assert.deepEqual(only('--profile', 'x'), ['symport'])
    assert.deepEqual(only('--profile', 'x', '--only', 'wss'), ['symport wss'])
  })

  it('opens none of the tunnels that --only leaves out', async () => {
    const processes = new Processes()
    const options = { rounds: 1, quick: true, profile: undefined, only: ['direct'] } as const
    const bench = new Bench(options, processes, new Progress(process.stderr))
    try {
      const names = await bench.withTunnels(['symport', 'symport wss', 'ssh', 'direct'], [1], async (tunnels) =>
        tunnels.map(({ name }) => name),
      )
      assert.deepEqual(names, ['direct'])
      assert.deepEqual([...bench.missing], [])
    } finally {
      await processes.close()
    }
  })

  it('opens symport through TLS and WebSocket, pinned to a CA that its server makes', async () => {
    const processes = new Processes()
    const options = { rounds: 1, quick: true, profile: undefined, only: undefined } as const
    const bench = new Bench(options, processes, new Progress(process.stderr))
    try {
      await using echo = await startEcho()
      const first: number[] = []
      await using relay = await startTarget((socket) => {
        const server = connect(Number(ports[0]), '127.0.0.1')
        server.on('error', () => {})
        server.once('close', () => socket.destroy())
        socket.once('data', (chunk) => first.push(chunk[0] ?? 0))
        socket.pipe(server).pipe(socket)
      })
      const ports: number[] = []
      const times = await bench.withTunnels(
        ['symport wss'],
        [echo.port],
        async ([tunnel]) => {
          assert.equal(tunnel?.name, 'symport wss')
          return await pingPong(tunnel?.ports[0] ?? 0, (made) => made < 3)
        },
        async (port) => {
          ports.push(port)
          return relay.port
        },
      )
      assert.equal(times.length, 3)
      // A TLS handshake is what a link begins with.
      assert.deepEqual(first, [0x16])
    } finally {
      await processes.close()
    }
  })

  it('puts wss beside tcp without a goal, and says nothing of it where it was not measured', () => {
    const series = new Series()
    const rows = [
      { metric: 'p99', what: 'latency', unit: 'ms' },
      { metric: 'p99', over: 'p50', what: 'spread', unit: 'x' },
    ]
    for (const [p50, p99] of [
      [1, 4],
      [2, 6],
      [2, 10],
    ] as const) {
      series.add('p50', 'symport', p50)
      series.add('p99', 'symport', p99)
    }
    assert.deepEqual(series.wssRows(rows), [])
    for (const [p50, p99] of [
      [1, 8],
      [2, 6],
      [4, 10],
    ] as const) {
      series.add('p50', 'symport wss', p50)
      series.add('p99', 'symport wss', p99)
    }
    const reported = { against: 'symport tcp', goal: 'reported', met: undefined }
    assert.deepEqual(series.wssRows(rows), [
      { ...reported, what: 'latency, wss', unit: 'ms', symport: 8, reference: 6, ratio: 1 },
      { ...reported, what: 'spread, wss', unit: 'x', symport: 3, reference: 4, ratio: 1 },
    ])
  })

  it('refuses a part, a flag and a number of rounds that do not exist', () => {
    for (const args of [
      ['P0'],
      ['--fast'],
      ['--rounds', '0'],
      ['--rounds', 'x'],
      ['--profile', 'P1'],
      ['--only', 'ftp'],
    ]) {
      assert.throws(() => parseOptions(args, PARTS), UsageError)
    }
  })
})
