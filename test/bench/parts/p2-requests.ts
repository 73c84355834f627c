import type { Bench } from '../bench.ts'
import { startNginx } from '../load/nginx.ts'
import { runWrk } from '../load/wrk.ts'
import { atLeast, type Findings, type Part, Series, under } from '../part.ts'

const CONNECTIONS = 64
/** A tunnel runs for days: what Node.js compiles in its first seconds is not what is measured. */
const WARM_SECONDS = 4

/** Small requests on keep-alive connections. */
export const requests: Part = {
  id: 'P2',
  title: `requests, ${CONNECTIONS} keep-alive connections`,
  needs: ['wrk', 'nginx'],
  run: measure,
}

async function measure(bench: Bench): Promise<Findings> {
  const series = new Series()
  await using nginx = await startNginx(bench.processes, 'hello')
  await bench.withTunnels(['symport', 'symport wss', 'ssh'], [nginx.port], async (tunnels) => {
    const wrk = (port: number | undefined, seconds: number) =>
      runWrk(bench.processes, port ?? 0, { connections: CONNECTIONS, seconds })
    for (const tunnel of tunnels) await wrk(tunnel.ports[0], bench.seconds(WARM_SECONDS))
    await bench.rotate(tunnels, 'requests', async (tunnel) => {
      const report = await wrk(tunnel.ports[0], bench.seconds(3))
      series.add('requests/s', tunnel.name, report.requestsPerSecond)
      series.add('p50 ms', tunnel.name, report.p50Ms)
      series.add('p99 ms', tunnel.name, report.p99Ms)
    })
  })
  return {
    series,
    rows: [
      series.ratioRow('requests/s', { what: 'requests', unit: '/s', against: 'ssh', goal: atLeast(3, 'x ssh') }),
      series.spreadRow('p99 ms', 'p50 ms', { what: 'requests, p99 of p50', goal: under(4, 'x p50') }),
      ...series.wssRows([
        { metric: 'requests/s', what: 'requests', unit: '/s' },
        { metric: 'p99 ms', over: 'p50 ms', what: 'requests, p99 of p50', unit: 'x' },
      ]),
    ],
  }
}
