import type { Bench } from '../bench.ts'
import { type Direction, Iperf3 } from '../load/iperf3.ts'
import { pingPong } from '../load/ping-pong.ts'
import { startEcho } from '../load/sockets.ts'
import { atMost, type Findings, type Part, Series } from '../part.ts'
import { percentile } from '../statistics.ts'
import type { Tunnel } from '../tunnels.ts'

const DIRECTIONS: readonly Direction[] = ['up', 'down']

/** P3 while P1 runs, as two mappings in one main connection. */
export const latencyUnderBulk: Part = {
  id: 'P5',
  title: 'latency under bulk, in one main connection',
  needs: ['iperf3'],
  run: measure,
}

async function measure(bench: Bench): Promise<Findings> {
  const series = new Series()
  await using iperf3 = await Iperf3.start(bench.processes)
  await using echo = await startEcho()
  const both = async (tunnel: Tunnel, direction: Direction, seconds: number) => {
    const bulk = await iperf3.begin(tunnel.ports[0] ?? 0, direction, seconds)
    let running = true
    const stop = (): void => {
      running = false
    }
    bulk.received.then(stop, stop)
    const times = await pingPong(tunnel.ports[1] ?? 0, () => running)
    return { times, gbits: await bulk.received }
  }
  await bench.withTunnels(['symport', 'symport wss', 'ssh'], [iperf3.port, echo.port], async (tunnels) => {
    for (const direction of DIRECTIONS) {
      for (const tunnel of tunnels) await both(tunnel, direction, 1)
      await bench.rotate(tunnels, `ping-pong beside bulk, ${direction}`, async (tunnel) => {
        const { times, gbits } = await both(tunnel, direction, bench.seconds(3))
        series.add(`${direction} p50 ms`, tunnel.name, percentile(times, 0.5) / 1000)
        series.add(`${direction} p99 ms`, tunnel.name, percentile(times, 0.99) / 1000)
        series.add(`${direction} Gbit/s meanwhile`, tunnel.name, gbits)
      })
    }
  })
  return {
    series,
    rows: [
      series.valueRow('up p99 ms', { what: 'p99 beside bulk to the target', unit: 'ms', goal: atMost(5, 'ms') }),
      series.valueRow('down p99 ms', { what: 'p99 beside bulk from it', unit: 'ms', goal: atMost(5, 'ms') }),
      ...series.wssRows([
        { metric: 'up p99 ms', what: 'p99 beside bulk to the target', unit: 'ms' },
        { metric: 'down p99 ms', what: 'p99 beside bulk from it', unit: 'ms' },
      ]),
    ],
  }
}
