import { setTimeout as sleep } from 'node:timers/promises'
import type { Bench } from '../bench.ts'
import { cpuSeconds, cpuTimesMissing, openFilesLimit } from '../load/cpu.ts'
import { openIdle } from '../load/idle.ts'
import { startEcho } from '../load/sockets.ts'
import { type Findings, type Part, Series, under } from '../part.ts'
import type { Tunnel, TunnelName } from '../tunnels.ts'

const CONNECTIONS = 1_000
/** Both ends of each connection are this process's own, for both tunnels. */
const FILES_NEEDED = 4 * CONNECTIONS + 200
const SIDES = ['server', 'node'] as const

/** What open and silent sub-connections cost. */
export const idle: Part = {
  id: 'P8',
  title: `idle cost, ${CONNECTIONS.toLocaleString('en')} sub-connections`,
  needs: [],
  lacks: () => {
    const few = openFilesLimit() < FILES_NEEDED ? `an open files limit of ${FILES_NEEDED} (ulimit -n)` : undefined
    return cpuTimesMissing() ?? few
  },
  run: measure,
}

async function measure(bench: Bench): Promise<Findings> {
  const series = new Series()
  await using echo = await startEcho()
  await bench.withTunnels(['symport', 'ssh'], [echo.port], async (tunnels) => {
    const idles: Disposable[] = []
    try {
      for (const tunnel of tunnels) {
        bench.progress(`opens ${CONNECTIONS} connections through ${tunnel.name}`)
        idles.push(await openIdle(tunnel.ports[0] ?? 0, CONNECTIONS))
      }
      bench.progress('lets things settle')
      await sleep(2_000)
      await watch(bench, tunnels, series)
    } finally {
      for (const idle of idles) idle[Symbol.dispose]()
    }
  })
  return {
    series,
    rows: SIDES.map((side) =>
      series.valueRow(`${side} %`, { what: `idle cost, ${side}`, unit: '% of a core', goal: under(0.5, '%') }),
    ),
  }
}

/**
 * The figure is that of the whole 60 s, so that a burst once in a while counts; the stretches, as many as there are
 * rounds, show whether there was one. Idle tunnels do not disturb each other, so both wait at once.
 */
async function watch(bench: Bench, tunnels: readonly Tunnel[], series: Series): Promise<void> {
  const total = bench.quick ? 10 : 60
  const first = takeReadings(tunnels)
  let last = first
  for (let stretch = 1; stretch <= bench.rounds; stretch++) {
    bench.progress(`waits: stretch ${stretch} of ${bench.rounds}, ${total} s in all`)
    await sleep((total * 1000) / bench.rounds)
    const now = takeReadings(tunnels)
    addUse(series, 'stretch, % of a core', last, now)
    last = now
  }
  addUse(series, '%', first, last)
}

interface Reading {
  readonly tunnel: TunnelName
  readonly at: number
  readonly server: number
  readonly node: number
}

function takeReadings(tunnels: readonly Tunnel[]): readonly Reading[] {
  return tunnels.map(({ name, pids }) => {
    if (pids === undefined) throw new Error(`${name} has no processes`)
    const at = performance.now() / 1000
    return { tunnel: name, at, server: cpuSeconds(pids.server), node: cpuSeconds(pids.node) }
  })
}

function addUse(series: Series, what: string, from: readonly Reading[], to: readonly Reading[]): void {
  for (const [index, after] of to.entries()) {
    const before = from[index]
    if (before === undefined) continue
    for (const side of SIDES) {
      series.add(`${side} ${what}`, after.tunnel, ((after[side] - before[side]) / (after.at - before.at)) * 100)
    }
  }
}
