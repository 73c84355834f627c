import type { Bench } from '../bench.ts'
import { DelayLines } from '../load/delay-line.ts'
import { type Direction, Iperf3 } from '../load/iperf3.ts'
import { atLeast, type Findings, type Part, type Row, Series } from '../part.ts'

const DIRECTIONS: readonly Direction[] = ['up', 'down']
const ROUND_TRIP_MS = 100
const LINK_BITS = 1e9
const SECONDS = 10
/** Until windows have grown to the path: those of symport, and those of TCP. */
const SLOW_START_SECONDS = 3

/** P1 over a path like that to another continent; each tunnel has such a path to itself, and one runs at a time. */
export const longFatPath: Part = {
  id: 'P7',
  title: `long fat path: ${ROUND_TRIP_MS} ms there and back, ${LINK_BITS / 1e9} Gbit/s`,
  needs: ['iperf3'],
  run: measure,
}

async function measure(bench: Bench): Promise<Findings> {
  const series = new Series()
  await using iperf3 = await Iperf3.start(bench.processes)
  await using lines = new DelayLines(bench.processes, { delayMs: ROUND_TRIP_MS / 2, bitsPerSecond: LINK_BITS })
  await bench.withTunnels(
    ['symport', 'direct'],
    [iperf3.port],
    async (tunnels) => {
      for (const direction of DIRECTIONS) {
        await bench.rotate(tunnels, direction, async (tunnel) => {
          const seconds = bench.seconds(SECONDS)
          const gbits = await iperf3.measure(tunnel.ports[0] ?? 0, direction, seconds, SLOW_START_SECONDS)
          series.add(direction, tunnel.name, gbits)
        })
      }
    },
    lines.path,
  )
  return { series, rows: DIRECTIONS.map((direction) => row(series, direction)) }
}

function row(series: Series, direction: Direction): Row {
  const what = `bulk over ${ROUND_TRIP_MS} ms, ${direction === 'up' ? 'to the target' : 'from the target'}`
  return series.ratioRow(direction, { what, unit: 'Gbit/s', against: 'direct', goal: atLeast(0.9, 'x bare TCP') })
}
