import { setTimeout as sleep } from 'node:timers/promises'
import type { Bench } from '../bench.ts'
import { openFilesLimit } from '../load/cpu.ts'
import { startHolder } from '../load/holder.ts'
import { openIdle } from '../load/idle.ts'
import { memoryMissing, residentKib } from '../load/memory.ts'
import { atMost, type Findings, type Part, type Row, Series } from '../part.ts'

const CONNECTIONS = 10_000
const LEAST_CONNECTIONS = 1_000
/** Of the open files of each process: what is not such a connection. */
const OTHER_FILES = 200
const SETTLE_SECONDS = 5
const SIDES = ['server', 'node'] as const

/** What memory open and silent sub-connections take. */
export const manyIdle: Part = {
  id: 'P6',
  title: 'many idle sub-connections',
  needs: [],
  lacks: () => {
    const limit = LEAST_CONNECTIONS + OTHER_FILES
    const few = openFilesLimit() < limit ? `an open files limit of ${limit} (ulimit -n)` : undefined
    return memoryMissing() ?? few
  },
  run: measure,
}

/** So many as are wanted, or as the limit of open files lets every process hold, in whole thousands. */
export function affordable(wanted: number, limit: number): number {
  return Math.min(wanted, Math.floor((limit - OTHER_FILES) / 1_000) * 1_000)
}

async function measure(bench: Bench): Promise<Findings> {
  const series = new Series()
  // No fewer in a quick run either: what a process takes once is then shared by too few.
  const count = affordable(CONNECTIONS, openFilesLimit())
  if (count < CONNECTIONS) {
    const limit = CONNECTIONS + OTHER_FILES
    bench.missing.add(`an open files limit of ${limit} (ulimit -n): P6 held ${count} connections, which says less`)
  }
  for (let round = 0; round < bench.rounds; round++) {
    for (const name of ['symport', 'direct'] as const) {
      // Memory that was used once stays with a process, so each round has new ones. A new port, too: the ports that the
      // last round's connections came from are in TIME_WAIT towards the old one.
      await using holder = await startHolder(bench.processes)
      await bench.withTunnels([name], [holder.port], async ([tunnel]) => {
        if (tunnel === undefined) return
        bench.progress(`opens ${count} connections: round ${round + 1} of ${bench.rounds}, ${name}`)
        const pids = tunnel.pids ?? { server: holder.pid, node: holder.pid }
        const grown = await growth(pids, tunnel.ports[0] ?? 0, count, bench.seconds(SETTLE_SECONDS) * 1000)
        for (const side of SIDES) series.add(`${side} KiB`, name, grown[side])
      })
    }
  }
  return { series, rows: SIDES.map((side) => row(series, side, count)) }
}

function row(series: Series, side: (typeof SIDES)[number], count: number): Row {
  const what = `memory of each of ${count.toLocaleString('en')} idle, ${side}`
  const figure = { what, unit: 'KiB', beside: 'direct' } as const
  if (count < CONNECTIONS) return series.plainRow(`${side} KiB`, figure)
  return series.valueRow(`${side} KiB`, { ...figure, goal: atMost(8, 'KiB') })
}

interface Sides {
  readonly server: number
  readonly node: number
}

/** By how many KiB each side has grown with `count` connections, for each of them. */
async function growth(pids: Sides, port: number, count: number, settleMs: number): Promise<Sides> {
  // What is loaded for the first connection of all is not the cost of one more.
  const first = await openIdle(port, 1)
  first[Symbol.dispose]()
  await sleep(settleMs)
  const before = takeReading(pids)
  using _idle = await openIdle(port, count)
  await sleep(settleMs)
  const after = takeReading(pids)
  return { server: (after.server - before.server) / count, node: (after.node - before.node) / count }
}

function takeReading(pids: Sides): Sides {
  return { server: residentKib(pids.server), node: residentKib(pids.node) }
}
