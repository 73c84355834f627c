import { setTimeout as sleep } from 'node:timers/promises'
import { Processes } from '../bench/processes.ts'
import { Progress } from '../bench/progress.ts'
import { Random } from '../fuzz/random.ts'
import { cutAgainAndAgain } from './cutter.ts'
import { parseOptions, USAGE, UsageError } from './options.ts'
import { formatTable, judge, type Minute } from './report.ts'
import { look, type Sample } from './samples.ts'
import { startDigest, startEcho } from './targets.ts'
import { openTunnel, type Tunnel } from './tunnel.ts'
import { ERRANDS, work } from './workers.ts'

const WORKERS = { short: 4, 'half-close': 2, bulk: 1 } as const
const SAMPLE_MS = 1000
const MINUTE_MS = 60_000
/** How long connections may take to be gone at both sides when nobody connects any more. */
const SETTLE_MS = 5000
const MAX_ERRORS = 10

async function main(args: readonly string[]): Promise<number> {
  const options = parseOptions(args)
  if (options.help) {
    console.log(USAGE)
    return 0
  }
  const { minutes, seed } = options
  console.log(`${minutes} minutes, seed ${seed}`)
  const processes = new Processes()
  const progress = new Progress(process.stderr)
  endOnSignals(processes, progress)
  const targets = { echo: await startEcho(), digest: await startDigest() }
  try {
    const ports = { echo: targets.echo.port, digest: targets.digest.port }
    const tunnel = await openTunnel(processes, ports)
    try {
      return await soak(tunnel, minutes, seed, progress)
    } finally {
      await tunnel.relay.close()
    }
  } finally {
    for (const target of Object.values(targets)) target.close()
    await processes.close()
  }
}

async function soak(tunnel: Tunnel, length: number, seed: number, progress: Progress): Promise<number> {
  const { server, node, relay, ports } = tunnel
  const begun = performance.now()
  const now = (): number => (performance.now() - begun) / MINUTE_MS
  const minutes: Minute[] = Array.from({ length }, () => ({ connections: 0, cuts: 0, errors: 0 }))
  const minute = (): Minute =>
    minutes[Math.min(length - 1, Math.floor(now()))] ?? { connections: 0, cuts: 0, errors: 0 }
  const errors: string[] = []
  const fail = (what: string): void => {
    minute().errors++
    if (errors.length < MAX_ERRORS) errors.push(`${now().toFixed(2)} min: ${what}`)
  }
  const samples = { server: [] as Sample[], node: [] as Sample[] }
  const before = { server: look(server.pid, 0).handles, node: look(node.pid, 0).handles }
  const stop = new AbortController()
  const { noise } = new Random(seed)
  const tasks = [cutAgainAndAgain(relay, new Random(seed, 0, noise), stop.signal, () => minute().cuts++)]
  for (const [kind, count] of Object.entries(WORKERS) as [keyof typeof WORKERS, number][]) {
    for (let left = count; left > 0; left--) {
      const random = new Random(seed, tasks.length, noise)
      tasks.push(
        work(ERRANDS[kind], ports, random, stop.signal, (fault) => {
          minute().connections++
          if (fault) fail(`${kind}: ${fault}`)
        }),
      )
    }
  }
  while (now() < length) {
    await sleep(SAMPLE_MS)
    if (server.ended || node.ended) {
      fail(`a process has ended: ${server.ended ? server.lastWords : node.lastWords}`)
      break
    }
    samples.server.push(look(server.pid, now()))
    samples.node.push(look(node.pid, now()))
    const total = minutes.reduce((sum, { connections }) => sum + connections, 0)
    progress.show(`minute ${Math.floor(now()) + 1} of ${length}: ${total.toLocaleString('en')} connections`)
  }
  stop.abort()
  await Promise.all(tasks)
  for (const what of await leftOver(tunnel, before)) fail(what)
  progress.clear()
  console.log(formatTable(minutes, samples))
  const verdicts = judge(samples)
  for (const { text } of verdicts) console.log(text)
  for (const error of errors) console.error(error)
  const failed = minutes.some(({ errors }) => errors > 0)
  return failed || verdicts.some(({ flat }) => !flat) ? 1 : 0
}

/** Handles that were not there before the first connection. The link itself may be another one. */
async function leftOver(
  { server, node }: Tunnel,
  before: Readonly<Record<'server' | 'node', number>>,
): Promise<string[]> {
  const until = performance.now() + SETTLE_MS
  const faults = (): string[] =>
    Object.entries({ server, node }).flatMap(([side, { pid, ended }]) => {
      const left = ended ? 0 : look(pid, 0).handles - before[side === 'server' ? 'server' : 'node']
      return left > 0 ? [`${left} handles are left at the ${side} when all connections are over`] : []
    })
  while (faults().length > 0 && performance.now() < until) await sleep(100)
  return faults()
}

function endOnSignals(processes: Processes, progress: Progress): void {
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    process.once(signal, () => {
      progress.clear()
      void processes.close().then(() => process.exit(status))
    })
  }
  process.on('exit', () => processes.killNow())
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  console.error(`soak: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = error instanceof UsageError ? 2 : 1
}
