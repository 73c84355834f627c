import type { Processes } from '../processes.ts'
import { requireProgram } from '../programs.ts'

export interface WrkReport {
  readonly requestsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
}

export interface WrkOptions {
  readonly connections: number
  readonly seconds: number
  /** The path of a Lua script that makes the requests. */
  readonly script?: string
  /** Ask over HTTPS, for this name; the certificate may be anybody's. */
  readonly host?: string
}

export async function runWrk(processes: Processes, port: number, o: WrkOptions): Promise<WrkReport> {
  const script = o.script === undefined ? [] : ['-s', o.script]
  const host = o.host === undefined ? [] : ['-H', `Host: ${o.host}`]
  const url = `${o.host === undefined ? 'http' : 'https'}://127.0.0.1:${port}/`
  const args = ['-t1', `-c${o.connections}`, `-d${o.seconds}s`, '--latency', ...script, ...host, url]
  return parseWrk(await processes.run(requireProgram('wrk'), args, 'wrk', (o.seconds + 15) * 1000))
}

export function parseWrk(output: string): WrkReport {
  const trouble = /Socket errors: .*|Non-2xx or 3xx responses: .*/.exec(output)?.[0]
  if (trouble !== undefined) throw new Error(`wrk: ${trouble}`)
  const rate = /Requests\/sec:\s+([\d.]+)/.exec(output)?.[1]
  if (rate === undefined) throw new Error('wrk reported no requests per second')
  return { requestsPerSecond: Number(rate), p50Ms: latencyMs(output, '50%'), p99Ms: latencyMs(output, '99%') }
}

function latencyMs(output: string, row: string): number {
  const match = new RegExp(`^\\s+${row}\\s+([\\d.]+)(us|ms|s)$`, 'm').exec(output)
  if (match === null) throw new Error(`wrk reported no ${row} latency`)
  const perMs = match[2] === 'us' ? 1000 : match[2] === 'ms' ? 1 : 0.001
  return Number(match[1]) / perMs
}
