import type { Bench } from '../bench.ts'
import { connectionLoad } from '../load/connections.ts'
import { startEchoes } from '../load/sockets.ts'
import { atLeast, type Findings, type Part, Series } from '../part.ts'

const AT_ONCE = 32
const ROUND_SECONDS = 2
/** As for P2; not longer, for the sake of the ports. */
const WARM_SECONDS = 3

/** Connect, 64 bytes each way, close. */
export const connections: Part = {
  id: 'P4',
  title: `new connections, ${AT_ONCE} at a time`,
  needs: ['wrk'],
  run: measure,
}

async function measure(bench: Bench): Promise<Findings> {
  const series = new Series()
  // A mapping for each round, and one to warm up: each connection leaves its port in TIME_WAIT for a minute, and
  // there are about 28,000 towards one address.
  await using echoes = await startEchoes(bench.rounds + 1)
  const load = connectionLoad(bench.processes, AT_ONCE)
  await bench.withTunnels(['symport', 'symport wss', 'ssh'], echoes.ports, async (tunnels) => {
    for (const tunnel of tunnels) await load(tunnel.ports[bench.rounds] ?? 0, bench.seconds(WARM_SECONDS))
    await bench.rotate(tunnels, 'connections', async (tunnel, round) => {
      series.add('connections/s', tunnel.name, await load(tunnel.ports[round] ?? 0, bench.seconds(ROUND_SECONDS)))
    })
  })
  return {
    series,
    rows: [
      series.ratioRow('connections/s', {
        what: 'new connections',
        unit: '/s',
        against: 'ssh',
        goal: atLeast(8, 'x ssh'),
      }),
      ...series.wssRows([{ metric: 'connections/s', what: 'new connections', unit: '/s' }]),
    ],
  }
}
