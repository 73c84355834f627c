import type { Bench } from '../bench.ts'
import { pingPong } from '../load/ping-pong.ts'
import { startEcho } from '../load/sockets.ts'
import { atMost, type Findings, type Part, Series } from '../part.ts'
import { percentile } from '../statistics.ts'

/** One connection with one small message under way, and nothing else. */
export const latency: Part = {
  id: 'P3',
  title: 'latency, 64-byte ping-pong',
  needs: [],
  run: measure,
}

async function measure(bench: Bench): Promise<Findings> {
  const series = new Series()
  await using echo = await startEcho()
  const count = bench.quick ? 2_000 : 10_000
  await bench.withTunnels(['symport', 'symport wss', 'ssh'], [echo.port], async (tunnels) => {
    // Twice as many as one round, so that the compilers of symport's two sides have done their work.
    for (const tunnel of tunnels) await pingPong(tunnel.ports[0] ?? 0, (made) => made < 2 * count)
    await bench.rotate(tunnels, 'ping-pong', async (tunnel) => {
      const times = await pingPong(tunnel.ports[0] ?? 0, (made) => made < count)
      series.add('p50 us', tunnel.name, percentile(times, 0.5))
      series.add('p99 us', tunnel.name, percentile(times, 0.99))
    })
  })
  return {
    series,
    rows: [
      series.ratioRow('p50 us', { what: 'latency, p50', unit: 'us', against: 'ssh', goal: atMost(1, 'x ssh') }),
      series.plainRow('p99 us', { what: 'latency, p99', unit: 'us' }),
      ...series.wssRows([
        { metric: 'p50 us', what: 'latency, p50', unit: 'us' },
        { metric: 'p99 us', what: 'latency, p99', unit: 'us' },
      ]),
    ],
  }
}
