import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Identity } from '../../helpers/transports/authority.ts'
import type { Bench } from '../bench.ts'
import { startNginx, startNginxProxy } from '../load/nginx.ts'
import { runWrk } from '../load/wrk.ts'
import { type Findings, type Part, Series } from '../part.ts'
import { nodeFlags, serverFlags, startSide } from '../tunnels/symport.ts'
import type { Tunnel } from '../tunnels.ts'

const CONNECTIONS = 64
const HOST = 'app.example.test'

/** Small requests to an HTTPS name, beside nginx as the reverse proxy that it is compared with: no tunnel is in its way. */
export const httpsName: Part = {
  id: 'P10',
  title: `requests to an HTTPS name, ${CONNECTIONS} keep-alive connections`,
  needs: ['wrk', 'nginx'],
  run: measure,
}

async function measure(bench: Bench): Promise<Findings> {
  const series = new Series()
  await using target = await startNginx(bench.processes, 'hello')
  const identity = Identity.create(HOST, { names: [HOST] })
  const tunnels: Tunnel[] = []
  try {
    if (bench.takesPart('symport')) tunnels.push(await openName(bench, identity, target.port))
    if (bench.takesPart('nginx')) tunnels.push(await openProxy(bench, identity, target.port))
    const wrk = ({ ports: [port] }: Tunnel, seconds: number) =>
      runWrk(bench.processes, port ?? 0, { connections: CONNECTIONS, seconds, host: HOST })
    for (const tunnel of tunnels) await wrk(tunnel, 1)
    await bench.rotate(tunnels, 'requests', async (tunnel) => {
      const report = await wrk(tunnel, bench.seconds(3))
      series.add('requests/s', tunnel.name, report.requestsPerSecond)
      series.add('p99 ms', tunnel.name, report.p99Ms)
    })
  } finally {
    for (const tunnel of tunnels) await tunnel.close()
  }
  return {
    series,
    rows: [
      series.plainRow('requests/s', { what: 'HTTPS name, requests', unit: '/s', beside: 'nginx' }),
      series.plainRow('p99 ms', { what: 'HTTPS name, p99', unit: 'ms', beside: 'nginx' }),
    ],
  }
}

async function openName(bench: Bench, { cert, key }: Identity, target: number): Promise<Tunnel> {
  const state = bench.processes.folder()
  const [certFile, keyFile] = [join(state, 'cert.pem'), join(state, 'key.pem')]
  writeFileSync(certFile, cert)
  writeFileSync(keyFile, key, { mode: 0o600 })
  const tls = ['--cert', certFile, '--key', keyFile, '--allow-names', HOST]
  const server = startSide(bench, 'server', [...serverFlags(state, 0), ...tls])
  const port = await server.waitFor('listening', (line) => {
    const found = /"address":"[^"]*:(\d+)".*"msg":"listening"/.exec(line)?.[1]
    return found === undefined ? undefined : Number(found)
  })
  const name = `http://127.0.0.1:${target}?mode=domain&value=${HOST}`
  const node = startSide(bench, 'node', [...nodeFlags(state, port), '-R', name])
  await node.waitFor('listener ready', (line) => (line.includes('"msg":"listener ready"') ? true : undefined))
  return {
    name: 'symport',
    ports: [port],
    pids: { server: server.pid, node: node.pid },
    close: async () => {
      await node.stop()
      await server.stop()
    },
  }
}

async function openProxy(bench: Bench, identity: Identity, target: number): Promise<Tunnel> {
  const proxy = await startNginxProxy(bench.processes, identity, target)
  return {
    name: 'nginx',
    ports: [proxy.port],
    pids: undefined,
    close: () => Promise.resolve(proxy[Symbol.asyncDispose]()),
  }
}
