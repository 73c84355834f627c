import { Progress } from '../bench/progress.ts'
import { shape } from '../soak/statistics.ts'
import { parseOptions, USAGE, UsageError } from './options.ts'
import { type RunResult, run, type Sample } from './run.ts'

/** Pauses of a whole run at which memory is looked at; the first ones are for caches to fill. */
const PAUSES = 10
const WARM_UP = 2
const MIB = 1024 * 1024
/** What is forgotten once in a thousand sessions shows in the heap; RSS only has to show what lies beside it. */
const BOUNDS = { heap: { rise: 2 * MIB, spread: 4 * MIB }, rss: { rise: 32 * MIB, spread: 64 * MIB } }

async function main(args: readonly string[]): Promise<number> {
  const options = parseOptions(args)
  if (options.help) {
    console.log(USAGE)
    return 0
  }
  const { seed, frames, handshakes } = options
  console.log(`seed ${seed}`)
  const progress = new Progress(process.stderr)
  const begun = performance.now()
  const result = await run({
    ...options,
    pauses: PAUSES,
    onProgress({ mutated, handshakes: done }, share) {
      const count = `${mutated.toLocaleString('en')} frames, ${done.toLocaleString('en')} handshakes`
      progress.show(`${Math.floor(share * 100)} %: ${count}`)
    },
  })
  progress.clear()
  const seconds = (performance.now() - begun) / 1000
  report(result, seconds)
  const faults = [...result.faults, ...(options.only === undefined ? memoryFaults(result.samples) : [])]
  for (const fault of faults) console.error(`\nfault: ${fault}`)
  if (faults.length === 0) return 0
  console.error(`\nnpm run fuzz -- --seed ${seed} --frames ${frames} --handshakes ${handshakes}`)
  console.error(`npm run fuzz -- --seed ${seed} --only N    for the one that a fault names`)
  return 1
}

function report({ tally, samples, codes }: RunResult, seconds: number): void {
  const { sessions, frames, mutated, resumes, resumed, handshakes } = tally
  const count = (value: number): string => value.toLocaleString('en')
  console.log(`${count(mutated)} mutated frames of ${count(frames)}, in ${count(sessions)} sessions`)
  console.log(`${count(resumed)} resumed of ${count(resumes)} tries; ${count(handshakes)} mutated handshakes`)
  console.log(`${seconds.toFixed(1)} s`)
  for (const [what, times] of [...codes].sort()) console.log(`  ${count(times).padStart(10)}  ${what}`)
  for (const { done, heap, rss } of samples) {
    console.log(`  ${`${Math.round(done * 100)} %`.padStart(10)}  heap ${mib(heap)}, rss ${mib(rss)}`)
  }
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`
}

/** What a run of any length may add: the heap is looked at with nothing under way, after a collection. */
function memoryFaults(samples: readonly Sample[]): string[] {
  const faults: string[] = []
  const settled = samples.slice(WARM_UP)
  for (const [what, bounds] of Object.entries(BOUNDS)) {
    const points = settled.map((sample) => ({ at: sample.done, value: sample[what === 'heap' ? 'heap' : 'rss'] }))
    const { rise, spread, flat } = shape(points, bounds)
    if (!flat) faults.push(`the ${what} is not flat: it rises by ${mib(rise)}, and spreads over ${mib(spread)}`)
  }
  return faults
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  console.error(`fuzz: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = error instanceof UsageError ? 2 : 1
}
