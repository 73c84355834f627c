import { Bench } from './bench.ts'
import { type Options, parseOptions, USAGE, UsageError } from './options.ts'
import type { Part } from './part.ts'
import { PARTS } from './parts/index.ts'
import { Processes } from './processes.ts'
import { describeMissing, findProgram } from './programs.ts'
import { Progress } from './progress.ts'
import { describeMachine, type PartResult, partResult, writeResults } from './results.ts'
import { formatTable, wantsColour } from './table.ts'

async function main(args: readonly string[]): Promise<number> {
  const options = parseOptions(args, PARTS)
  if (options.help) {
    console.log(USAGE)
    return 0
  }
  const processes = new Processes()
  const progress = new Progress(process.stderr)
  const bench = new Bench(options, processes, progress)
  endOnSignals(processes, progress)
  try {
    const { done, failed } = await runParts(bench, options)
    progress.clear()
    if (done.length > 0) console.log(formatTable(done, wantsColour(process.stdout)))
    for (const missing of bench.missing) console.log(`missing: ${missing}`)
    if (done.length > 0) await keep(bench, options, done)
    for (const line of failed) console.error(line)
    return failed.length > 0 ? 1 : 0
  } finally {
    await processes.close()
  }
}

/** A part that cannot be measured or fails is named, and the others go on. */
async function runParts(bench: Bench, options: Options): Promise<{ done: PartResult[]; failed: string[] }> {
  const done: PartResult[] = []
  const failed: string[] = []
  for (const part of options.parts) {
    const lacks = lackedBy(part)
    for (const missing of lacks) bench.missing.add(`${missing}: ${part.id} was left out`)
    if (lacks.length > 0) continue
    bench.startPart(part.id)
    try {
      done.push(partResult(part, await part.run(bench), options.command, options.rounds))
    } catch (error) {
      failed.push(`${part.id} failed: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  return { done, failed }
}

function lackedBy(part: Part): string[] {
  const programs = part.needs.filter((program) => findProgram(program) === undefined).map(describeMissing)
  const other = part.lacks?.()
  return other === undefined ? programs : [...programs, other]
}

/** Only a whole measurement goes into the file: no quick look, no run that the profiler slowed, none that leaves out who is compared. */
async function keep(bench: Bench, options: Options, done: readonly PartResult[]): Promise<void> {
  const { quick, profile, only } = options
  if (quick || profile !== undefined || only !== undefined || bench.isMissing('symport')) return
  const note = writeResults(await describeMachine(bench.processes), done)
  if (note !== '') console.error(note)
}

function endOnSignals(processes: Processes, progress: Progress): void {
  let ending = false
  const end = (signal: 'SIGINT' | 'SIGTERM' | 'SIGHUP', status: number): void => {
    process.on(signal, () => {
      // The first one ends everything in order, the next one does not wait.
      if (ending) process.exit(status)
      ending = true
      progress.clear()
      void processes.close().then(() => process.exit(status))
    })
  }
  end('SIGINT', 130)
  end('SIGTERM', 143)
  end('SIGHUP', 129)
  process.on('exit', () => processes.killNow())
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  console.error(`bench: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = error instanceof UsageError ? 2 : 1
}
