import type { Bench } from '../bench.ts'
import { type Direction, Iperf3 } from '../load/iperf3.ts'
import { atLeast, type Findings, type Part, type Row, Series } from '../part.ts'

const DIRECTIONS: readonly Direction[] = ['up', 'down']
/** A tunnel runs for days: what Node.js compiles in its first seconds is not what is measured. */
const WARM_SECONDS = 3

/** One sub-connection, as fast as it goes, each way. */
export const bulk: Part = {
  id: 'P1',
  title: 'bulk, one sub-connection',
  needs: ['iperf3'],
  run: measure,
}

async function measure(bench: Bench): Promise<Findings> {
  const series = new Series()
  await using iperf3 = await Iperf3.start(bench.processes)
  await bench.withTunnels(['symport', 'symport wss', 'ssh', 'direct'], [iperf3.port], async (tunnels) => {
    for (const direction of DIRECTIONS) {
      for (const tunnel of tunnels) {
        bench.progress(`${direction}: warms up ${tunnel.name}`)
        await iperf3.measure(tunnel.ports[0] ?? 0, direction, bench.seconds(WARM_SECONDS))
      }
      await bench.rotate(tunnels, direction, async (tunnel) => {
        const gbits = await iperf3.measure(tunnel.ports[0] ?? 0, direction, bench.seconds(3))
        series.add(direction, tunnel.name, gbits)
      })
    }
  })
  const overWss = DIRECTIONS.map((direction) => ({ metric: direction, what: describe(direction), unit: 'Gbit/s' }))
  return {
    series,
    rows: [...DIRECTIONS.flatMap((direction) => rows(series, direction)), ...series.wssRows(overWss)],
  }
}

function rows(series: Series, direction: Direction): readonly Row[] {
  const what = describe(direction)
  return [
    series.ratioRow(direction, { what, unit: 'Gbit/s', against: 'ssh', goal: atLeast(1, 'x ssh') }),
    series.ratioRow(direction, { what, unit: 'Gbit/s', against: 'direct', goal: atLeast(0.4, 'x raw') }),
  ]
}

function describe(direction: Direction): string {
  return direction === 'up' ? 'bulk, to the target' : 'bulk, from the target'
}
